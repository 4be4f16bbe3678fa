"""Machine code that extends a program's environment before the program's own first instruction.

The kernel starts a program with argc, argv, the environment and the auxiliary vector on its stack.  This code copies
them down, inserts pointers to the settings behind the environment, and jumps to the program's entry point.  A setting
whose name the environment has already is left out.  Settings are read from a table behind the code, all numbers in
four bytes::

    bytes to reserve on the stack for the pointers, a multiple of 16
    length of NAME= and offset of NAME=VALUE from the table, for each setting
    0

Source: the System V ABI's supplements for AMD64 (3.4.1, initial stack and register state) and for AArch64.  The code
uses no data but the table and the stack, and runs at any address.

Example: with the table ``16, 9, 16, 0`` and the string ``QEMU_CPU=max`` behind it, the program finds QEMU_CPU set.
"""

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from binfmtd.errors import FormatError

_NO_JUMP = "no jump leads from its end to its entry point"

# as, then objcopy -O binary -j .text; the tests compare the result with the code below.
X86_64_SOURCE = """
.intel_syntax noprefix
    mov r8, rsp                 # argc, argv, 0, environment, 0, auxiliary vector
    lea r9, [rip + table]
    mov eax, [r9]
    sub rsp, rax
    mov rdi, rsp
    mov rsi, r8
    mov rcx, [r8]
    add rcx, 2
    rep movsq                   # argc, argv, 0
    mov r10, rdi                # the new environment
environment:
    lodsq
    test rax, rax
    jz copied
    stosq
    jmp environment
copied:
    mov r8, rsi                 # the auxiliary vector
    mov r11, rdi                # the end of what the caller has set
    mov r12, rdi
    lea r13, [r9 + 4]
setting:
    mov ebp, [r13]              # length of NAME=
    test ebp, ebp
    jz end
    mov eax, [r13 + 4]
    add rax, r9                 # its string
    add r13, 8
    mov rbx, r10
search:
    cmp rbx, r11
    je add_it
    mov rsi, rax
    mov rdi, [rbx]
    add rbx, 8
    mov ecx, ebp
    repe cmpsb
    jne search
    jmp setting
add_it:
    mov [r12], rax
    add r12, 8
    jmp setting
end:
    mov rdi, r12
    mov rsi, r8
    xor eax, eax
    stosq
auxiliary:
    lodsq
    stosq
    mov rcx, rax
    movsq
    test rcx, rcx
    jnz auxiliary
    xor eax, eax                # as the kernel has it; rdx, for atexit, was not touched
    xor ebx, ebx
    xor esi, esi
    xor edi, edi
    xor ebp, ebp
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    .byte 0xe9                  # jmp to the old entry point
    .long 0
    .balign 8, 0xcc
table:
"""
AARCH64_SOURCE = """
    mov x9, sp                  // argc, argv, 0, environment, 0, auxiliary vector
    adr x10, table
    ldr w11, [x10]
    sub sp, sp, x11
    mov x12, sp
    ldr x13, [x9]
    add x13, x13, #2
arguments:
    ldr x14, [x9], #8
    str x14, [x12], #8
    subs x13, x13, #1
    b.ne arguments
    mov x13, x12                // the new environment
environment:
    ldr x14, [x9], #8
    cbz x14, copied
    str x14, [x12], #8
    b environment
copied:
    mov x14, x12                // the end of what the caller has set; x9 is at the auxiliary vector
    add x11, x10, #4
setting:
    ldp w15, w16, [x11]         // length of NAME=, place of its string
    cbz w15, end
    add x11, x11, #8
    add x16, x10, x16
    mov x17, x13
search:
    cmp x17, x14
    b.eq add_it
    ldr x1, [x17], #8
    mov x2, x16
    mov w3, w15
compare:
    ldrb w4, [x1], #1
    ldrb w5, [x2], #1
    cmp w4, w5
    b.ne search
    subs w3, w3, #1
    b.ne compare
    b setting
add_it:
    str x16, [x12], #8
    b setting
end:
    str xzr, [x12], #8
auxiliary:
    ldp x1, x2, [x9], #16
    stp x1, x2, [x12], #16
    cbnz x1, auxiliary
    mov x2, xzr                 // as the kernel has it; x0 was not touched
    mov x3, xzr
    mov x4, xzr
    mov x5, xzr
    mov x9, xzr
    mov x10, xzr
    mov x11, xzr
    mov x12, xzr
    mov x13, xzr
    mov x14, xzr
    mov x15, xzr
    mov x16, xzr
    mov x17, xzr
    b .                         // to the old entry point
    .balign 8
table:
"""


class EntryCode(NamedTuple):
    """The code for one machine, up to the table; ``jump`` is the offset of its last instruction, the jump."""

    code: bytes
    jump: int

    def jumping(self, distance: int) -> bytes:
        """Return the code with a jump that ends ``distance`` bytes after the code's begin.

        Raises FormatError if no jump of this machine reaches that far.
        """
        distance -= self.jump
        if self.code[self.jump] == _X86_JUMP:
            relative = distance - 5  # counts from the end of the instruction
            if not -(1 << 31) <= relative < 1 << 31:
                raise FormatError(_NO_JUMP)
            return self._with(struct.pack("<Bi", _X86_JUMP, relative))
        if distance % 4 or not -(1 << 27) <= distance < 1 << 27:
            raise FormatError(_NO_JUMP)
        return self._with(struct.pack("<I", _ARM_JUMP | distance >> 2 & 0x3FFFFFF))

    def target(self, data: bytes) -> int:
        """Return the ``distance`` of the jump in ``data``, which ``jumping`` has returned."""
        if self.code[self.jump] == _X86_JUMP:
            (relative,) = struct.unpack_from("<i", data, self.jump + 1)
            return int(relative) + self.jump + 5
        (word,) = struct.unpack_from("<I", data, self.jump)
        return (((int(word) & 0x3FFFFFF) ^ 0x2000000) - 0x2000000) * 4 + self.jump

    def is_in(self, data: bytes) -> bool:
        """Return True if ``data`` begins with this code, wherever its jump leads."""
        rest = self.jump + (5 if self.code[self.jump] == _X86_JUMP else 4)
        return data[: self.jump] == self.code[: self.jump] and data[rest : len(self.code)] == self.code[rest:]

    def _with(self, instruction: bytes) -> bytes:
        return self.code[: self.jump] + instruction + self.code[self.jump + len(instruction) :]


_X86_JUMP, _ARM_JUMP = 0xE9, 0x14000000
_X86_64 = bytes.fromhex(
    "4989e04c8d0da6000000418b014829c44889e74c89c6498b084883c102f348a54989fa48ad4885c0740448abebf54989f04989fb"
    "4989fc4d8d6904418b6d0085ed742f418b45044c01c84983c5084c89d34c39db74124889c6488b3b4883c30889e9f3a675ebebd3"
    "498904244983c408ebc94c89e74c89c631c048ab48ad48ab4889c148a54885c975f231c031db31f631ff31ed4531c04531c94531"
    "d24531db4531e44531ede900000000cccccccccc"
)
_AARCH64 = bytes.fromhex(
    "e9030091ea0600104b0140b9ff632bcbec0300912d0140f9ad0900912e8540f88e8500f8ad0500f1a1ffff54ed030caa2e8540f8"
    "6e0000b48e8500f8fdffff17ee030caa4b1100916f4140294f0200346b2100915001108bf1030daa3f020eeb60010054218640f8"
    "e20310aae3030f2a24144038451440389f00056b01ffff546304007161ffff54f0ffff17908500f8eeffff179f8500f82109c1a8"
    "810981a8c1ffffb5e2031faae3031faae4031faae5031faae9031faaea031faaeb031faaec031faaed031faaee031faaef031faa"
    "f0031faaf1031faa000000141f2003d5"
)
# By e_machine.
ENTRY_CODE: Mapping[int, EntryCode] = MappingProxyType(
    {
        62: EntryCode(_X86_64, 166),
        183: EntryCode(_AARCH64, 216),
    }
)
