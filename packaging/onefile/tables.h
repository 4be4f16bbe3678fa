/* The tables that freeze.py generates. */
#ifndef TABLES_H
#define TABLES_H

#include <Python.h>

/* A file that is not a Python module. */
struct content {
    const char *name;
    const unsigned char *begin;
    Py_ssize_t size;
};

extern const struct _frozen frozen_modules[]; /* up to one without a name */
extern const struct content contents[];       /* likewise */

#endif
