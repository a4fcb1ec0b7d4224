/* Eager execution by native kernels: the callable that takes the place of a value function.
 *
 * A Function knows NumPy's way and the kernels that there are, one for each way in which the operands
 * can lie. Called with arrays for which there is one, it makes the result's array and runs the kernel
 * in pieces; whatever else it is called with goes to NumPy's way, as it came. Pieces depend on the
 * shape alone, so the bits do not depend on how many threads there are. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>
#include <sys/mman.h>
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>

#define PARAMETERS 8
#define PARTIALS 4
#define PIECES 64
/* Work, in additions, of a piece: about 10 us, as in c_source.py. */
#define PIECE (1L << 17)

typedef void (*part_t)(void **table, long begin, long end);
typedef void (*last_t)(void **table, long pieces);
typedef void (*run_t)(part_t part, void **table, long size, long piece);

/* How an operand lies as seen from rows and columns, as in eager_source.py. */
enum { NONE = 'n', EACH = 'e', SCALAR = 's', ROW = 'r', COLUMN = 'c' };

typedef struct {
    part_t part;
    last_t last;     /* combines partial results */
    long cost;       /* of a point, in additions */
    int type;        /* of the floats among the operands */
    int out_type;
    char out;        /* how the result lies */
    char keeps;      /* reduced axes stay, whatever the call says */
    char by_rows;    /* or one row has it all */
    char kinds[PARAMETERS + 1], types[PARAMETERS + 1];
} Kernel;

typedef struct {
    PyObject_HEAD
    PyObject *numpy;  /* what is called otherwise */
    PyObject *names;  /* of the parameters */
    char roles[PARAMETERS + 1]; /* of the parameters: Array, Number, aXis, Keepdims */
    char reduces;     /* it has an axis */
    Kernel *kernels;
    Py_ssize_t kernel_count;
    long count;       /* how often one of them ran */
    vectorcallfunc call;
} Function;

static run_t run;
static npy_intp threshold;

/* --- memory ---
 *
 * Fresh pages from the system cost more than most kernels. So large results lie in blocks that are
 * kept when they are freed, a few of them, for the next one. All of this happens under the
 * interpreter's lock, as NumPy's allocations do. */

#define KEPT 16
#define LARGE (1L << 18)  /* bytes from which on blocks are kept */
#define ROOM (64L << 20)  /* bytes that are kept at most, two blocks of half of it for instance */
#define HUGE_PAGES (1UL << 22) /* bytes from which on pages are to be large */

static struct {
    void *blocks[KEPT];
    size_t sizes[KEPT];
    size_t total;
    int count;
} spare;

static void *block_from(int k) {
    void *block = spare.blocks[k];
    spare.total -= spare.sizes[k];
    spare.count--;
    for (; k < spare.count; k++) {
        spare.blocks[k] = spare.blocks[k + 1];
        spare.sizes[k] = spare.sizes[k + 1];
    }
    return block;
}

static void *block_new(void *context, size_t size) {
    void *block = NULL;
    for (int k = spare.count - 1; k >= 0; k--) /* the last is likeliest in the caches */
        if (spare.sizes[k] == size) return block_from(k);
    size_t least = size >= HUGE_PAGES ? 4096 : 64;
    if (posix_memalign(&block, least, size)) return NULL;
#ifdef MADV_HUGEPAGE
    if (size >= HUGE_PAGES) madvise(block, size, MADV_HUGEPAGE); /* as NumPy does */
#endif
    return block;
}

static void *block_of_zeros(void *context, size_t count, size_t size) {
    void *block = block_new(context, count * size);
    return block ? memset(block, 0, count * size) : NULL;
}

static void block_free(void *context, void *block, size_t size) {
    if (!block) return;
    if (size < LARGE || size > ROOM / 2) { /* it was resized */
        free(block);
        return;
    }
    while (spare.count == KEPT || spare.total + size > ROOM) free(block_from(0));
    spare.blocks[spare.count] = block;
    spare.sizes[spare.count++] = size;
    spare.total += size;
}

static void *block_resized(void *context, void *block, size_t size) { return realloc(block, size); }

static PyDataMem_Handler handler = {
    "tensorgrad_eager", 1, {NULL, block_new, block_of_zeros, block_resized, block_free}};
static PyObject *handler_capsule;

static PyObject *new_array(int n, npy_intp *dims, int type, npy_intp bytes) {
    if (bytes < LARGE || bytes > ROOM / 2) return PyArray_SimpleNew(n, dims, type);
    PyObject *before = PyDataMem_SetHandler(handler_capsule);
    if (!before) return NULL;
    PyObject *out = PyArray_SimpleNew(n, dims, type);
    PyObject *ours = PyDataMem_SetHandler(before);
    Py_DECREF(before);
    Py_XDECREF(ours);
    return out;
}

/* --- a call --- */

/* What a call is about. */
typedef struct {
    PyArrayObject *arrays[PARAMETERS];
    double numbers[PARAMETERS];
    char kinds[PARAMETERS + 1], types[PARAMETERS + 1];
    int type, ndim, keepdims, first; /* first: of the axes that are reduced */
    npy_intp *dims, size, rows, columns;
} Call;

/* The distinct places of an array lie side by side, repeated along the last axes, or all axes. */
static char lies(PyArrayObject *a) {
    if (PyArray_IS_C_CONTIGUOUS(a)) return EACH;
    int n = PyArray_NDIM(a);
    npy_intp *dims = PyArray_DIMS(a), *strides = PyArray_STRIDES(a);
    while (n && (dims[n - 1] == 1 || !strides[n - 1])) n--;
    npy_intp step = PyArray_ITEMSIZE(a);
    for (int k = n - 1; k >= 0; k--) {
        if (dims[k] != 1 && strides[k] != step) return 0;
        step *= dims[k];
    }
    return n ? COLUMN : SCALAR;
}

/* The parameter that is an array, or something like a number. 0 where it is neither. */
static int take_operand(Call *c, int k, PyObject *x) {
    c->arrays[k] = NULL;
    c->types[k] = 'f';
    if (PyArray_CheckExact(x)) {
        PyArrayObject *a = (PyArrayObject *)x;
        int type = PyArray_TYPE(a);
        if (!PyArray_ISBEHAVED_RO(a)) return 0;
        if (type == NPY_BOOL) c->types[k] = 'b';
        else if (type != NPY_FLOAT && type != NPY_DOUBLE) return 0;
        else if (c->type >= 0 && type != c->type) return 0;
        else c->type = type;
        c->arrays[k] = a;
        return 1;
    }
    c->kinds[k] = SCALAR;
    if (PyFloat_CheckExact(x)) c->numbers[k] = PyFloat_AS_DOUBLE(x);
    else if (PyLong_CheckExact(x)) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(x, &overflow);
        if (overflow || number > 1L << 24 || number < -(1L << 24)) return 0;
        c->numbers[k] = (double)number;
    } else if (x == Py_None) c->kinds[k] = NONE;
    else return 0;
    return 1;
}

/* The axes to reduce, which must be the last ones. */
static int take_axes(Call *c, PyObject *axis) {
    Py_ssize_t count = PyTuple_CheckExact(axis) ? PyTuple_GET_SIZE(axis) : 1;
    if (count > c->ndim || !count) return 0;
    c->first = c->ndim - (int)count;
    for (Py_ssize_t k = 0; k < count; k++) {
        PyObject *x = PyTuple_CheckExact(axis) ? PyTuple_GET_ITEM(axis, k) : axis;
        if (!PyLong_CheckExact(x)) return 0;
        long at = PyLong_AsLong(x);
        if (at == -1 && PyErr_Occurred()) PyErr_Clear();
        if (at != c->first + k) return 0;
    }
    for (int k = c->first; k < c->ndim; k++) c->columns *= c->dims[k];
    return 1;
}

/* An array that is smaller than the largest one: how it lies, if it is broadcast to it. */
static char lies_within(Call *c, PyArrayObject *a) {
    int n = PyArray_NDIM(a);
    npy_intp *dims = PyArray_DIMS(a), size = PyArray_SIZE(a), columns = 1;
    if (n > c->ndim) return 0;
    if (size == 1) return SCALAR;
    if (!PyArray_IS_C_CONTIGUOUS(a)) return 0;
    int same = 0;
    while (same < n && dims[same] == c->dims[same]) same++;
    if (same) { /* the first axes: repeated along the others, which have size 1 or were reduced */
        for (int k = same; k < n; k++)
            if (dims[k] != 1) same = 0;
        if (same && (n == c->ndim || (n == same && same == c->first))) {
            columns = c->size / size;
            if (c->columns > 1 && c->columns != columns) return 0;
            c->columns = columns;
            return COLUMN;
        }
    }
    int at = 0;
    while (at < n && dims[at] == 1) at++;
    for (int k = at; k < n; k++)
        if (dims[k] != c->dims[c->ndim - n + k]) return 0;
    if (size == c->size) return EACH;
    if (c->columns > 1 && c->columns != size) return 0;
    c->columns = size;
    return ROW;
}

static int same_shape(Call *c, PyArrayObject *a) {
    if (PyArray_NDIM(a) != c->ndim) return 0;
    for (int k = 0; k < c->ndim; k++)
        if (PyArray_DIMS(a)[k] != c->dims[k]) return 0;
    return 1;
}

/* Find out what a call is about. 0 where it is nothing for a kernel. */
static int understand(Function *f, Call *c, PyObject **given) {
    PyObject *axis = NULL;
    int known = 0;
    c->type = -1, c->keepdims = 0, c->size = -1, c->columns = 1;
    for (int k = 0; f->roles[k]; k++) {
        c->arrays[k] = NULL;
        if (f->roles[k] == 'a' || f->roles[k] == 'n') {
            if (!take_operand(c, k, given[k])) return 0;
            if (f->roles[k] == 'n' && (c->arrays[k] || c->kinds[k] == NONE)) return 0;
            PyArrayObject *a = c->arrays[k];
            if (a && PyArray_SIZE(a) > c->size) {
                c->size = PyArray_SIZE(a);
                c->dims = PyArray_DIMS(a);
                c->ndim = PyArray_NDIM(a);
            }
        } else if (f->roles[k] == 'x') axis = given[k];
        else {
            if (!PyBool_Check(given[k])) return 0;
            c->keepdims = given[k] == Py_True;
        }
    }
    if (c->size < threshold || c->size < 2 || c->type < 0) return 0;
    c->first = c->ndim + 1;
    if (axis && !take_axes(c, axis)) return 0;
    for (int k = 0; f->roles[k]; k++) {
        PyArrayObject *a = c->arrays[k];
        if (!a) continue;
        char kind = same_shape(c, a) ? lies(a) : lies_within(c, a);
        if (!kind) return 0;
        if (kind == COLUMN && PyArray_SIZE(a) == c->size) {
            npy_intp columns = 1;
            for (int d = c->ndim - 1; c->dims[d] == 1 || !PyArray_STRIDES(a)[d]; d--)
                columns *= c->dims[d];
            if (c->columns > 1 && c->columns != columns) return 0;
            c->columns = columns;
        }
        c->kinds[k] = kind;
        known |= kind == EACH;
    }
    c->rows = c->size / c->columns;
    return known;
}

static Kernel *fitting(Function *f, Call *c) {
    int by_rows = 0;
    for (int k = 0; f->roles[k]; k++)
        if (f->roles[k] == 'a') by_rows |= c->kinds[k] == ROW || c->kinds[k] == COLUMN;
    if (f->reduces) by_rows = c->rows > 1;
    for (Py_ssize_t i = 0; i < f->kernel_count; i++) {
        Kernel *kernel = f->kernels + i;
        int fits = kernel->type == c->type && kernel->by_rows == by_rows;
        for (int k = 0; fits && f->roles[k]; k++)
            if (f->roles[k] == 'a')
                fits = kernel->kinds[k] == c->kinds[k] &&
                       (c->kinds[k] == NONE || kernel->types[k] == c->types[k] || !c->arrays[k]);
        if (fits) return kernel;
    }
    return NULL;
}

static PyObject *new_result(Call *c, Kernel *kernel) {
    npy_intp dims[NPY_MAXDIMS];
    int n = 0;
    for (int k = 0; k < c->ndim; k++) {
        int reduced = kernel->out != EACH && k >= c->first;
        if (!reduced || c->keepdims || kernel->keeps) dims[n++] = reduced ? 1 : c->dims[k];
    }
    npy_intp size = kernel->out == EACH ? c->size : c->rows;
    npy_intp bytes = size * (kernel->out_type == NPY_DOUBLE ? 8 : kernel->out_type == NPY_FLOAT ? 4 : 1);
    return new_array(n, dims, kernel->out_type, bytes);
}

static PyObject *computed(Function *f, Call *c, Kernel *kernel) {
    double partial[PARTIALS][PIECES];
    float singles[PARAMETERS];
    void *table[PARAMETERS + 2 + PARTIALS];
    int n = 0;
    PyObject *out = new_result(c, kernel);
    if (!out) return NULL;
    f->count++;
    for (int k = 0; f->roles[k]; k++) {
        if (f->roles[k] != 'a' && f->roles[k] != 'n') continue;
        int single = f->roles[k] == 'a' && c->type == NPY_FLOAT;
        singles[k] = (float)c->numbers[k];
        table[n++] = c->arrays[k] ? PyArray_DATA(c->arrays[k])
                     : single     ? (void *)(singles + k)
                                  : (void *)(c->numbers + k);
    }
    long size = kernel->by_rows ? c->rows : c->size;
    long pieces = kernel->cost * c->size / PIECE, piece = size;
    if (pieces > PIECES) pieces = PIECES;
    if (pieces > size) pieces = size;
    if (pieces > 1) {
        piece = (size + pieces - 1) / pieces;
        if (!kernel->by_rows) piece = (piece + 15) / 16 * 16;
    }
    pieces = (size + piece - 1) / piece;
    long sizes[] = {c->columns, piece};
    table[n++] = PyArray_DATA((PyArrayObject *)out);
    table[n++] = sizes;
    for (int k = 0; k < PARTIALS; k++) table[n++] = partial[k];
    Py_BEGIN_ALLOW_THREADS
    if (pieces > 1) run(kernel->part, table, size, piece);
    else kernel->part(table, 0, size);
    if (kernel->last) kernel->last(table, pieces);
    Py_END_ALLOW_THREADS
    return out;
}

static PyObject *function_call(PyObject *self, PyObject *const *args, size_t flags, PyObject *names) {
    Function *f = (Function *)self;
    PyObject *given[PARAMETERS] = {NULL};
    Py_ssize_t n = PyVectorcall_NARGS(flags), named = names ? PyTuple_GET_SIZE(names) : 0;
    Py_ssize_t wanted = PyTuple_GET_SIZE(f->names);
    if (n + named == wanted) {
        for (Py_ssize_t k = 0; k < n; k++) given[k] = args[k];
        for (Py_ssize_t i = 0; i < named; i++)
            for (Py_ssize_t k = n; k < wanted; k++) /* names in code and in calls are interned */
                if (PyTuple_GET_ITEM(f->names, k) == PyTuple_GET_ITEM(names, i)) given[k] = args[n + i];
        int all = 1;
        for (Py_ssize_t k = 0; k < wanted; k++) all &= given[k] != NULL;
        Call c;
        if (all && understand(f, &c, given)) {
            Kernel *kernel = fitting(f, &c);
            if (kernel) return computed(f, &c, kernel);
        }
    }
    return PyObject_Vectorcall(f->numpy, args, flags, names);
}

/* --- the type --- */

static int add_kernel(Function *f, Kernel *to, PyObject *x) {
    unsigned long long part, last;
    const char *kinds, *types;
    int out, by_rows;
    if (!PyArg_ParseTuple(x, "KKliiCpss", &part, &last, &to->cost, &to->type, &to->out_type, &out,
                          &by_rows, &kinds, &types))
        return 0;
    if (strlen(kinds) != strlen(f->roles) || strlen(types) != strlen(f->roles)) {
        PyErr_SetString(PyExc_ValueError, "a kernel needs a kind and a type for each parameter");
        return 0;
    }
    to->part = (part_t)(uintptr_t)part;
    to->last = (last_t)(uintptr_t)last;
    to->keeps = out < 'a';
    to->out = (char)(to->keeps ? out - 'A' + 'a' : out);
    to->by_rows = (char)by_rows;
    strcpy(to->kinds, kinds);
    strcpy(to->types, types);
    return 1;
}

static PyObject *function_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *numpy, *names, *kernels;
    const char *roles;
    if (!PyArg_ParseTuple(args, "OO!sO!", &numpy, &PyTuple_Type, &names, &roles, &PyList_Type, &kernels))
        return NULL;
    if (strlen(roles) > PARAMETERS || (Py_ssize_t)strlen(roles) != PyTuple_GET_SIZE(names)) {
        PyErr_SetString(PyExc_ValueError, "a role is needed for each parameter");
        return NULL;
    }
    Function *f = (Function *)type->tp_alloc(type, 0);
    if (!f) return NULL;
    f->call = function_call;
    f->numpy = Py_NewRef(numpy);
    f->names = Py_NewRef(names);
    strcpy(f->roles, roles);
    f->reduces = strchr(roles, 'x') != NULL;
    f->kernels = PyMem_Calloc((size_t)PyList_GET_SIZE(kernels) + 1, sizeof *f->kernels);
    for (; f->kernel_count < PyList_GET_SIZE(kernels); f->kernel_count++)
        if (!add_kernel(f, f->kernels + f->kernel_count, PyList_GET_ITEM(kernels, f->kernel_count))) {
            Py_DECREF(f);
            return NULL;
        }
    return (PyObject *)f;
}

static int function_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(((Function *)self)->numpy);
    return 0;
}

static void function_dealloc(PyObject *self) {
    Function *f = (Function *)self;
    PyObject_GC_UnTrack(self);
    PyMem_Free(f->kernels);
    Py_CLEAR(f->names);
    Py_CLEAR(f->numpy);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef function_members[] = {
    {"numpy", T_OBJECT_EX, offsetof(Function, numpy), READONLY, "what is called otherwise"},
    {"count", T_LONG, offsetof(Function, count), READONLY, "how often a kernel ran"},
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Function, call), READONLY},
    {NULL},
};

static PyTypeObject FunctionType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tensorgrad_eager.Function",
    .tp_basicsize = sizeof(Function),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_doc = "A function of arrays that has kernels.",
    .tp_new = function_new,
    .tp_call = PyVectorcall_Call,
    .tp_vectorcall_offset = offsetof(Function, call),
    .tp_traverse = function_traverse,
    .tp_dealloc = function_dealloc,
    .tp_members = function_members,
};

/* link(run, threshold): the function that shares out pieces, and the elements from which on kernels
 * are used. */
static PyObject *link_threads(PyObject *module, PyObject *args) {
    unsigned long long address;
    Py_ssize_t least;
    if (!PyArg_ParseTuple(args, "Kn", &address, &least)) return NULL;
    run = (run_t)(uintptr_t)address;
    threshold = least;
    Py_RETURN_NONE;
}

static PyObject *release(PyObject *module, PyObject *none) {
    while (spare.count) free(block_from(0));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"release", release, METH_NOARGS, "give the memory that is kept back to the system"},
    {"link", link_threads, METH_VARARGS, "say how work is shared out, and from which size on"},
    {NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tensorgrad_eager", NULL, -1, methods};

PyMODINIT_FUNC PyInit_tensorgrad_eager(void) {
    import_array();
    if (PyType_Ready(&FunctionType) < 0) return NULL;
    PyObject *m = PyModule_Create(&module);
    handler_capsule = PyCapsule_New(&handler, "mem_handler", NULL);
    if (!m || !handler_capsule) return NULL;
    Py_INCREF(&FunctionType);
    if (PyModule_AddObject(m, "Function", (PyObject *)&FunctionType) < 0) return NULL;
    return m;
}
