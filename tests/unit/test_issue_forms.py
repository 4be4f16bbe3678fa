"""The forms for issues in .github/ISSUE_TEMPLATE: GitHub shows a form with an error as no form at all."""

import re
import shutil
import sysconfig
from pathlib import Path

import pytest
from support.cli import CHECKOUT, run

FOLDER = CHECKOUT / ".github" / "ISSUE_TEMPLATE"
FORMS = ("bug", "feature")
ASKED_FOR = ("binfmtd doctor --json", "binfmtd status --json")
TYPES = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
SCHEMAS = {
    "bug": "vendor.github-issue-forms",
    "feature": "vendor.github-issue-forms",
    "config": "vendor.github-issue-config",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema(name: str) -> None:
    """GitHub's own schema allows the file."""
    tool = shutil.which("check-jsonschema", path=sysconfig.get_path("scripts")) or shutil.which("check-jsonschema")
    if tool is None:
        pytest.skip("check-jsonschema is not here: `make test-containers` installs it")
    if SCHEMAS[name] not in run([tool, "--help"]).stdout:
        pytest.skip(f"this check-jsonschema has no schema {SCHEMAS[name]}: 0.34 has it")
    said = run([tool, "--builtin-schema", SCHEMAS[name], str(FOLDER / f"{name}.yml")])
    assert said.status == 0, said.stdout + said.stderr


def fields(form: str) -> list[str]:
    """Return the text of each field of a form; each begins with its type."""
    return re.split(r"(?m)^  - type: ", form.partition("\nbody:\n")[2])[1:]


@pytest.mark.parametrize("name", FORMS)
def test_structure(name: str) -> None:
    """A form has a name, a description and fields; each field that is filled in has an id of its own and a label."""
    form = (FOLDER / f"{name}.yml").read_text(encoding="utf-8")
    assert re.search(r"(?m)^name: \S", form)
    assert re.search(r"(?m)^description: \S", form)
    found = fields(form)
    assert len(found) > 2
    assert {field.split()[0] for field in found} <= TYPES
    filled_in = [field for field in found if not field.startswith("markdown")]
    ids = [re.findall(r"(?m)^    id: (\S+)$", field) for field in filled_in]
    assert all(len(each) == 1 for each in ids)
    assert len({each[0] for each in ids}) == len(filled_in)
    assert all(len(re.findall(r"(?m)^      label: \S", field)) == 1 for field in filled_in)


@pytest.mark.parametrize("name", FORMS)
def test_it_asks_for_both_documents(name: str) -> None:
    """Each form asks for both documents as JSON, and the form for a fault requires them."""
    found = fields((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    for command in ASKED_FOR:
        (field,) = [field for field in found if f"      label: {command}\n" in field]
        assert "      render: json\n" in field
        assert f"      required: {'true' if name == 'bug' else 'false'}\n" in field


def test_no_other_file() -> None:
    """Each file in the folder is tested."""
    assert {path.stem for path in FOLDER.iterdir()} == set(SCHEMAS)


def test_commands_exist() -> None:
    """The commands that the forms ask for take --json."""
    for command in ASKED_FOR:
        source = Path(CHECKOUT / "binfmtd/cli/commands" / f"{command.split()[1]}.py").read_text(encoding="utf-8")
        assert "options.add_json(" in source
