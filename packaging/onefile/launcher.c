/*
 * The one file: a program that contains Python, binfmtd, and everything that both need but for glibc.
 *
 * Python finds its modules in a table of this program ("frozen modules", PyImport_FrozenModules), so no file is
 * unpacked, and none is searched for on the host.  freeze.py generates the tables.  start.py, which is the frozen
 * module __main__, loads the compiled modules from memory.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tables.h"

/*
 * Two functions of newer versions of glibc, without which the program needs no more than glibc 2.34.  The build passes
 * --wrap for both to the linker, so that calls of Python and of libexpat come here.
 *
 * hypot of glibc 2.35 differs from the older version only in how it reports errors.
 */
#if defined(__x86_64__)
__asm__(".symver older_hypot, hypot@GLIBC_2.2.5");
#elif defined(__aarch64__)
__asm__(".symver older_hypot, hypot@GLIBC_2.17");
#else
#define older_hypot __real_hypot
#endif
double older_hypot(double, double);
double __wrap_hypot(double, double);

double __wrap_hypot(double x, double y)
{
    return older_hypot(x, y);
}

/* arc4random_buf came with glibc 2.36; libexpat takes eight bytes for the seed of a hash. */
void __wrap_arc4random_buf(void *, size_t);

void __wrap_arc4random_buf(void *buffer, size_t size)
{
    if (getentropy(buffer, size) != 0)
        abort();
}

/* content(name): the content of a file that is not a Python module, without a copy. */
static PyObject *content(PyObject *Py_UNUSED(self), PyObject *argument)
{
    const char *name = PyUnicode_AsUTF8(argument);
    if (name == NULL)
        return NULL;
    for (const struct content *each = contents; each->name != NULL; each++)
        if (strcmp(each->name, name) == 0)
            return PyMemoryView_FromMemory((char *)each->begin, each->size, PyBUF_READ);
    errno = ENOENT;
    return PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, argument);
}

/* load(path): load a library that compiled modules need; they find it by its own name (DT_SONAME). */
static PyObject *load(PyObject *Py_UNUSED(self), PyObject *argument)
{
    const char *path = PyUnicode_AsUTF8(argument);
    if (path == NULL)
        return NULL;
    if (dlopen(path, RTLD_NOW | RTLD_LOCAL) == NULL) {
        PyErr_SetString(PyExc_ImportError, dlerror());
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"content", content, METH_O, NULL},
    {"load", load, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_onefile", .m_size = 0, .m_methods = methods};

static PyObject *make_module(void)
{
    return PyModuleDef_Init(&module);
}

static void checked(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

/* As `python -I` starts, in UTF-8 whatever the locale is, and without a search for Python's files. */
static void start(int argc, char **argv)
{
    PyPreConfig before;
    PyPreConfig_InitPythonConfig(&before);
    before.isolated = 1;
    before.use_environment = 0;
    before.parse_argv = 0;
    before.utf8_mode = 1;
    before.coerce_c_locale = 0;
    checked(Py_PreInitialize(&before));

    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    config.isolated = 1;
    config.use_environment = 0;
    config.parse_argv = 0;
    config.safe_path = 1;
    config.site_import = 0;
    config.user_site_directory = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.module_search_paths_set = 1;
    checked(PyConfig_SetBytesArgv(&config, argc, argv));
    checked(PyConfig_SetBytesString(&config, &config.home, "/nonexistent"));
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length > 0) { /* without /proc Python finds the program by argv[0] and PATH */
        path[length] = '\0';
        checked(PyConfig_SetBytesString(&config, &config.program_name, path));
        checked(PyConfig_SetBytesString(&config, &config.executable, path));
    }
    checked(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
}

int main(int argc, char **argv)
{
    PyImport_FrozenModules = frozen_modules;
    if (PyImport_AppendInittab("_onefile", make_module) != 0)
        return 1;
    start(argc, argv);
    if (PyImport_ImportFrozenModule("__main__") <= 0) {
        PyErr_Print(); /* SystemExit, with which each command ends, does not return from here */
        return 1;
    }
    return Py_FinalizeEx() < 0 ? 120 : 0;
}
