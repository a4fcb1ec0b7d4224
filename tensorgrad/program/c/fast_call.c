/* The fast call of a small program: checks what has to be the same, hands over the arguments, runs,
 * and gives the results, all without Python in between. A long program lets other threads go on while it
 * runs; the caller sees to it that none of them calls it, or changes the same gradients.
 *
 * An Entry is made from lists that tensorgrad/program/fast_call.py fills. Called with the arguments of a
 * compiled function it returns the result, or NotImplemented where anything is not as it was at
 * capture: then nothing has been done, and the caller takes the slow path. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <structmember.h>
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>

typedef int (*segment_t)(void **table);

typedef struct {
    int ndim, type;
    npy_intp dims[8];
    PyObject *kind;   /* type of the tensor's node */
    char *copy;       /* where a small argument is copied to, or NULL */
    Py_ssize_t bytes;
    Py_ssize_t first, end; /* of a large one's items among ``places`` */
    PyObject *held;        /* the array, while other threads go on */
} Argument;

typedef struct {
    PyObject *a, *b, *c;
    Py_ssize_t n;
    void *to;
} Item;

typedef struct {
    Item *items;
    Py_ssize_t count;
} Items;

/* Entries of one dict, which lie side by side among ``dicts``. */
typedef struct {
    PyObject *dict;
    Py_ssize_t first, end;
    uint64_t version; /* of the dict when all of them were as they should be */
} Run;

typedef struct {
    PyObject_HEAD
    PyObject *keep; /* the specification: holds references to everything below */
    Argument *arguments;
    Py_ssize_t argument_count;
    Items tensors, hooks, cells, dicts, sizes, items, attributes, functions, contents, leaves, modules,
        classes, rates, draws, words, gradients, results, overwritten, segments, places;
    PyTypeObject *tensor_type;
    Py_ssize_t data_at, node_at, grad_at, hooks_at;
    PyObject *mode_var, *mode, *active, *next_position, *versions_dict;
    PyObject *defaults, *default_dtype, *rest;
    uintptr_t *ranges; /* memory outside begins and ends by turns at these addresses */
    Py_ssize_t range_count;
    long limit;        /* calls until the next check */
    long is_long;
    Run *runs;
    Py_ssize_t run_count;
    void **table;
    void (*set_threads)(int);
    int (*get_threads)(void);
    long count;
} Entry;

static PyObject *name_position, *name_key, *name_latest, *name_default;

#define SLOT(object, at) (*(PyObject **)((char *)(object) + (at)))

/* --- the call --- */

/* Equal and of one type: -0.0 is not 0.0, and NaN is NaN. Where it cannot tell it says no. */
static int same(PyObject *now, PyObject *then) {
    if (now == then) return 1;
    if (!now || !then || Py_TYPE(now) != Py_TYPE(then)) return 0;
    if (PyFloat_CheckExact(now)) {
        double a = PyFloat_AS_DOUBLE(now), b = PyFloat_AS_DOUBLE(then);
        return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
    }
    if (PyLong_CheckExact(now) || PyUnicode_CheckExact(now) || PyBytes_CheckExact(now)) {
        int equal = PyObject_RichCompareBool(now, then, Py_EQ);
        if (equal < 0) PyErr_Clear();
        return equal == 1;
    }
    if (PyTuple_CheckExact(now)) {
        if (PyTuple_GET_SIZE(now) != PyTuple_GET_SIZE(then)) return 0;
        for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(now); k++)
            if (!same(PyTuple_GET_ITEM(now, k), PyTuple_GET_ITEM(then, k))) return 0;
        return 1;
    }
    return 0;
}

static int unsigned_attribute(PyObject *object, PyObject *name, uint64_t *to) {
    PyObject *n = PyObject_GetAttr(object, name);
    if (!n) return 0;
    *to = PyLong_AsUnsignedLongLongMask(n);
    Py_DECREF(n);
    return !PyErr_Occurred();
}

/* Whether the attributes of a module are as they were, in their order. Before 3.13 the version of a
 * dict tells; later, not every change of an attribute gives another one. */
static int same_attributes(Item *m) {
#if PY_VERSION_HEX < 0x030D0000
    return ((PyDictObject *)m->a)->ma_version_tag == (uint64_t)(uintptr_t)m->to;
#else
    PyObject *name, *value; /* b: the names; c: the values, and b for those that are not looked at */
    Py_ssize_t at = 0, k = 0, count = PyTuple_GET_SIZE(m->b);
    for (; PyDict_Next(m->a, &at, &name, &value); k++) {
        if (k >= count || !same(name, PyTuple_GET_ITEM(m->b, k))) return 0;
        PyObject *then = PyTuple_GET_ITEM(m->c, k);
        if (then != m->b && !same(value, then)) return 0;
    }
    return k == count;
#endif
}

/* An entry of a container as ``guards.matches`` has it: the class of tensors stands for any tensor. */
static int same_entry(Entry *e, PyObject *now, PyObject *then) {
    return same(now, then) ||
           (then == (PyObject *)e->tensor_type && PyObject_TypeCheck(now, e->tensor_type));
}

/* Whether a dict, a list or a tuple has these entries, in order; of a dict they are keys and values. */
static int same_content(Entry *e, PyObject *now, PyObject *then) {
    Py_ssize_t count = PyTuple_GET_SIZE(then), at = 0, k = 0;
    if (PyDict_CheckExact(now)) {
        PyObject *key, *value;
        for (; PyDict_Next(now, &at, &key, &value); k += 2)
            if (k >= count || !same_entry(e, key, PyTuple_GET_ITEM(then, k)) ||
                !same_entry(e, value, PyTuple_GET_ITEM(then, k + 1)))
                return 0;
        return k == count;
    }
    if (PySequence_Fast_GET_SIZE(now) != count) return 0;
    for (; k < count; k++)
        if (!same_entry(e, PySequence_Fast_GET_ITEM(now, k), PyTuple_GET_ITEM(then, k))) return 0;
    return 1;
}

/* Whether everything is as it was when the program was captured. */
static int holds(Entry *e) {
    PyObject *mode = NULL;
    if (PyContextVar_Get(e->mode_var, NULL, &mode) < 0) return 0;
    Py_XDECREF(mode);
    if (mode != e->mode || PyList_GET_SIZE(e->active)) return 0;
    if (PyDict_GetItem(e->defaults, name_default) != e->default_dtype) return 0;
    for (Py_ssize_t k = 0; k < e->modules.count; k++)
        if (!same_attributes(&e->modules.items[k])) return 0;
    for (Py_ssize_t k = 0; k < e->classes.count; k++) { /* any attribute of a class and its bases */
        Item *t = &e->classes.items[k];
        if (((PyTypeObject *)t->a)->tp_version_tag != (unsigned int)t->n) return 0;
    }
    for (Py_ssize_t k = 0; k < e->tensors.count; k++) {
        Item *t = &e->tensors.items[k];
        if (SLOT(t->a, e->data_at) != t->b || SLOT(t->a, e->node_at) != t->c) return 0;
    }
    for (Py_ssize_t k = 0; k < e->hooks.count; k++) {
        Item *h = &e->hooks.items[k]; /* a list, or None */
        if (SLOT(h->a, e->hooks_at) != h->b) return 0;
        if (h->b != Py_None && PyList_GET_SIZE(h->b) != h->n) return 0;
    }
    for (Py_ssize_t k = 0; k < e->cells.count; k++)
        if (!same(PyCell_GET(e->cells.items[k].a), e->cells.items[k].b)) return 0;
    for (Run *r = e->runs; r < e->runs + e->run_count; r++) {
#if PY_VERSION_HEX < 0x030D0000
        uint64_t version = ((PyDictObject *)r->dict)->ma_version_tag;
        if (version == r->version) continue;
#endif
        for (Py_ssize_t k = r->first; k < r->end; k++) {
            Item *d = &e->dicts.items[k]; /* n: that nothing is there */
            PyObject *now = PyDict_GetItem(d->a, d->b);
            if (d->n ? now != NULL : !same(now, d->c)) return 0;
        }
#if PY_VERSION_HEX < 0x030D0000
        r->version = version;
#endif
    }
    for (Py_ssize_t k = 0; k < e->sizes.count; k++) {
        Item *s = &e->sizes.items[k];
        if ((PyDict_Check(s->a) ? PyDict_GET_SIZE(s->a) : PyList_GET_SIZE(s->a)) != s->n) return 0;
    }
    for (Py_ssize_t k = 0; k < e->items.count; k++) {
        Item *i = &e->items.items[k];
        if (PyList_GET_SIZE(i->a) <= i->n || !same(PyList_GET_ITEM(i->a, i->n), i->b)) return 0;
    }
    for (Py_ssize_t k = 0; k < e->attributes.count; k++) {
        Item *a = &e->attributes.items[k]; /* n: the class itself; else the dict of the object */
        if (a->n) {
            if ((PyObject *)Py_TYPE(a->a) != a->c) return 0;
            continue;
        }
        PyObject *now = PyObject_GenericGetDict(a->a, NULL);
        Py_XDECREF(now);
        if (!now) PyErr_Clear();
        if (now != a->c) return 0;
    }
    for (Py_ssize_t k = 0; k < e->functions.count; k++) {
        Item *f = &e->functions.items[k]; /* function; code, defaults and keyword defaults */
        PyObject *none = Py_None, *code = PyFunction_GET_CODE(f->a);
        PyObject *defaults = PyFunction_GET_DEFAULTS(f->a), *keywords = PyFunction_GET_KW_DEFAULTS(f->a);
        if (code != PyTuple_GET_ITEM(f->b, 0)) return 0;
        if ((defaults ? defaults : none) != PyTuple_GET_ITEM(f->b, 1)) return 0;
        if ((keywords ? keywords : none) != PyTuple_GET_ITEM(f->b, 2)) return 0;
    }
    for (Py_ssize_t k = 0; k < e->contents.count; k++)
        if (!same_content(e, e->contents.items[k].a, e->contents.items[k].b)) return 0;
    for (Py_ssize_t k = 0; k < e->leaves.count; k++) {
        Item *l = &e->leaves.items[k];
        if ((SLOT(l->a, e->grad_at) == Py_None) != l->n) return 0;
    }
    if (e->rest != Py_None) {
        PyObject *held = PyObject_CallNoArgs(e->rest);
        int yes = held == Py_True;
        Py_XDECREF(held);
        if (!yes) return 0;
    }
    return 1;
}

/* Whether nobody keeps a gradient that the program is about to overwrite. */
static int unkept(Entry *e) {
    for (Py_ssize_t k = 0; k < e->gradients.count; k++) {
        Item *g = &e->gradients.items[k]; /* leaf, tensor or None, its rows or None */
        if (g->b == Py_None) continue;
        /* Whoever else refers to the gradient or to its array keeps it: it must not be overwritten. */
        Py_ssize_t expected = 2 + (SLOT(g->a, e->grad_at) == g->b);
        if (Py_REFCNT(g->b) > expected) return 0;
        if (g->c != Py_None ? Py_REFCNT(g->c) > 3 : Py_REFCNT(SLOT(g->b, e->data_at)) > 2) return 0;
    }
    return 1;
}

/* Whether argument k shares no memory with those before it, nor with what lies outside. */
static int apart(Entry *e, PyObject *args, Py_ssize_t k, PyArrayObject *a) {
    uintptr_t low = (uintptr_t)PyArray_DATA(a), high = low + (uintptr_t)PyArray_NBYTES(a);
    if (low == high) return 1;
    for (Py_ssize_t j = 0; j < k; j++) {
        PyArrayObject *b = (PyArrayObject *)SLOT(PyTuple_GET_ITEM(args, j), e->data_at);
        uintptr_t first = (uintptr_t)PyArray_DATA(b), last = first + (uintptr_t)PyArray_NBYTES(b);
        if (first < high && low < last) return 0;
    }
    Py_ssize_t from = 0, to = e->range_count; /* the first address above low */
    while (from < to) {
        Py_ssize_t middle = (from + to) / 2;
        if (e->ranges[middle] > low) to = middle;
        else from = middle + 1;
    }
    return from % 2 == 0 && (from == e->range_count || e->ranges[from] >= high);
}

static int take(Entry *e, PyObject *args) {
    for (Py_ssize_t k = 0; k < e->argument_count; k++) {
        PyObject *t = PyTuple_GET_ITEM(args, k);
        Argument *want = &e->arguments[k];
        if (Py_TYPE(t) != e->tensor_type) return 0;
        PyObject *node = SLOT(t, e->node_at);
        if (!node || (PyObject *)Py_TYPE(node) != want->kind) return 0;
        PyArrayObject *a = (PyArrayObject *)SLOT(t, e->data_at);
        if (!a || !PyArray_CheckExact(a)) return 0;
        if (PyArray_NDIM(a) != want->ndim || PyArray_TYPE(a) != want->type) return 0;
        if (!PyArray_ISCARRAY_RO(a)) return 0; /* in order, aligned, of this machine's byte order */
        for (int d = 0; d < want->ndim; d++)
            if (PyArray_DIM(a, d) != want->dims[d]) return 0;
        if (!apart(e, args, k, a)) return 0;
    }
    return 1;
}

static PyObject *new_tensor(Entry *e, PyObject *array) {
    PyObject *t = e->tensor_type->tp_alloc(e->tensor_type, 0);
    if (!t) {
        Py_DECREF(array);
        return NULL;
    }
    SLOT(t, e->data_at) = array;
    Py_INCREF(Py_None);
    SLOT(t, e->node_at) = Py_None;
    return t;
}

static int run(Entry *e) {
    int before = e->get_threads ? e->get_threads() : 1, failed = 0;
    if (before != 1) e->set_threads(1);
    for (Py_ssize_t k = 0; k < e->segments.count && !failed; k++)
        failed = ((segment_t)e->segments.items[k].to)(e->table);
    if (before != 1) e->set_threads(before);
    return failed;
}

/* Other threads may give the tensors other arrays meanwhile: those that were copied from or placed
 * stay until the end. */
static int run_beside_others(Entry *e, PyObject *args) {
    for (Py_ssize_t k = 0; k < e->argument_count; k++) {
        e->arguments[k].held = SLOT(PyTuple_GET_ITEM(args, k), e->data_at);
        Py_INCREF(e->arguments[k].held);
    }
    int failed;
    Py_BEGIN_ALLOW_THREADS
    failed = run(e);
    Py_END_ALLOW_THREADS
    for (Py_ssize_t k = 0; k < e->argument_count; k++) Py_CLEAR(e->arguments[k].held);
    return failed;
}

static PyObject *entry_call(PyObject *self, PyObject *args, PyObject *kwargs) {
    Entry *e = (Entry *)self;
    if (kwargs || e->count >= e->limit || PyTuple_GET_SIZE(args) != e->argument_count ||
        !take(e, args) || !holds(e) || !unkept(e)) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NOTIMPLEMENTED;
    }
    for (Py_ssize_t k = 0; k < e->argument_count; k++) {
        PyArrayObject *a = (PyArrayObject *)SLOT(PyTuple_GET_ITEM(args, k), e->data_at);
        Argument *to = &e->arguments[k];
        if (to->copy) memcpy(to->copy, PyArray_DATA(a), to->bytes);
        for (Py_ssize_t j = to->first; j < to->end; j++) { /* n: what is added to its address */
            Item *place = &e->places.items[j];
            *(char **)place->to = (char *)PyArray_DATA(a) + place->n;
        }
    }
    for (Py_ssize_t k = 0; k < e->rates.count; k++) {
        Item *r = &e->rates.items[k]; /* dict, key; n: bytes of a float */
        PyObject *value = PyDict_GetItem(r->a, r->b);
        double x = value ? PyFloat_AsDouble(value) : -1;
        if (!value || (x == -1 && PyErr_Occurred())) {
            PyErr_Clear();
            Py_RETURN_NOTIMPLEMENTED;
        }
        if (r->n == 4) *(float *)r->to = (float)x;
        else *(double *)r->to = x;
    }
    for (Py_ssize_t k = 0; k < e->draws.count; k++) {
        Item *d = &e->draws.items[k]; /* generator, name; n: what is added */
        uint64_t value;
        if (!unsigned_attribute(d->a, d->b, &value)) return NULL;
        *(uint64_t *)d->to = value + (uint64_t)d->n;
    }
    if (e->is_long ? run_beside_others(e, args) : run(e))
        Py_RETURN_NOTIMPLEMENTED; /* a label out of range: the slow path says which */

    for (Py_ssize_t k = 0; k < e->gradients.count; k++) {
        Item *g = &e->gradients.items[k];
        PyObject *old = SLOT(g->a, e->grad_at);
        if (old != g->b) {
            Py_INCREF(g->b);
            SLOT(g->a, e->grad_at) = g->b;
            Py_XDECREF(old);
        }
    }
    if (e->overwritten.count) {
        PyObject *now = PyObject_CallNoArgs(e->next_position);
        if (!now) return NULL;
        for (Py_ssize_t k = 0; k < e->overwritten.count; k++) {
            Py_INCREF(now);
            PyList_SetItem(e->overwritten.items[k].a, 0, now);
        }
        int bad = PyDict_SetItem(e->versions_dict, name_latest, now);
        Py_DECREF(now);
        if (bad) return NULL;
    }
    for (Py_ssize_t k = 0; k < e->words.count; k++) {
        Item *w = &e->words.items[k];
        uint64_t value;
        if (!unsigned_attribute(w->a, name_position, &value)) return NULL;
        PyObject *next = PyLong_FromUnsignedLongLong(value + (uint64_t)w->n);
        if (!next || PyObject_SetAttr(w->a, name_position, next) < 0) {
            Py_XDECREF(next);
            return NULL;
        }
        Py_DECREF(next);
    }
    e->count++;
    PyObject *out = PyTuple_New(e->results.count);
    if (!out) return NULL;
    for (Py_ssize_t k = 0; k < e->results.count; k++) {
        PyObject *copy = PyArray_NewCopy((PyArrayObject *)e->results.items[k].a, NPY_CORDER);
        PyObject *t = copy ? new_tensor(e, copy) : NULL;
        if (!t) {
            Py_DECREF(out);
            return NULL;
        }
        PyTuple_SET_ITEM(out, k, t);
    }
    return out;
}

/* Whether the program is for a call with these arguments, as far as can be seen here. */
static PyObject *entry_hold(PyObject *self, PyObject *args) {
    Entry *e = (Entry *)self;
    int yes = PyTuple_GET_SIZE(args) == e->argument_count && take(e, args) && holds(e);
    if (PyErr_Occurred()) return NULL;
    e->count += yes;
    return PyBool_FromLong(yes);
}

/* --- making one --- */

static int read_items(PyObject *spec, const char *name, Items *into) {
    PyObject *list = PyDict_GetItemString(spec, name);
    if (!list || !PyList_Check(list)) {
        PyErr_Format(PyExc_TypeError, "%s must be a list", name);
        return -1;
    }
    into->count = PyList_GET_SIZE(list);
    into->items = PyMem_Calloc(into->count ? into->count : 1, sizeof(Item));
    if (!into->items) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t k = 0; k < into->count; k++) {
        PyObject *t = PyList_GET_ITEM(list, k); /* (a, b, c, n, address) */
        Item *i = &into->items[k];
        unsigned long long address;
        if (!PyArg_ParseTuple(t, "OOOnK", &i->a, &i->b, &i->c, &i->n, &address)) return -1;
        i->to = (void *)(uintptr_t)address;
    }
    return 0;
}

static Py_ssize_t offset_of(PyObject *type, const char *name) {
    PyObject *d = PyObject_GetAttrString(type, name);
    if (!d) return -1;
    Py_ssize_t at = -1;
    if (Py_TYPE(d) == &PyMemberDescr_Type) at = ((PyMemberDescrObject *)d)->d_member->offset;
    else PyErr_Format(PyExc_TypeError, "%s is no slot", name);
    Py_DECREF(d);
    return at;
}

static PyObject *entry_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyObject *spec;
    if (!PyArg_ParseTuple(args, "O!", &PyDict_Type, &spec)) return NULL;
    Entry *e = (Entry *)type->tp_alloc(type, 0);
    if (!e) return NULL;
    Py_INCREF(spec);
    e->keep = spec;
#define OBJECT(field) e->field = PyDict_GetItemString(spec, #field)
    e->tensor_type = (PyTypeObject *)PyDict_GetItemString(spec, "tensor_type");
    PyObject *leaf_type = PyDict_GetItemString(spec, "leaf_type");
    OBJECT(mode_var);
    OBJECT(mode);
    OBJECT(active);
    OBJECT(rest);
    OBJECT(next_position);
    OBJECT(versions_dict);
    OBJECT(defaults);
    OBJECT(default_dtype);
    e->data_at = offset_of((PyObject *)e->tensor_type, "data");
    e->node_at = offset_of((PyObject *)e->tensor_type, "node");
    e->grad_at = offset_of(leaf_type, "grad");
    e->hooks_at = offset_of(leaf_type, "hooks");
    if (e->data_at < 0 || e->node_at < 0 || e->grad_at < 0 || e->hooks_at < 0) goto fail;
#define ITEMS(field)                                                                               \
    if (read_items(spec, #field, &e->field) < 0) goto fail
    ITEMS(tensors);
    ITEMS(hooks);
    ITEMS(cells);
    ITEMS(dicts);
    ITEMS(sizes);
    ITEMS(items);
    ITEMS(attributes);
    ITEMS(functions);
    ITEMS(contents);
    ITEMS(leaves);
    ITEMS(modules);
    ITEMS(classes);
    ITEMS(rates);
    ITEMS(draws);
    ITEMS(words);
    ITEMS(gradients);
    ITEMS(results);
    ITEMS(overwritten);
    ITEMS(segments);
    ITEMS(places);
#if PY_VERSION_HEX < 0x030D0000
    for (Py_ssize_t k = 0; k < e->modules.count; k++)
        e->modules.items[k].to = (void *)(uintptr_t)((PyDictObject *)e->modules.items[k].a)->ma_version_tag;
#endif
    for (Py_ssize_t k = 0; k < e->classes.count; k++) {
        PyTypeObject *t = (PyTypeObject *)e->classes.items[k].a;
        _PyType_Lookup(t, name_default); /* gives it a tag, if it has none */
        e->classes.items[k].n = t->tp_version_tag;
        if (!t->tp_version_tag) {
            PyErr_SetString(PyExc_ValueError, "a class has no version");
            goto fail;
        }
    }
    e->runs = PyMem_Calloc(e->dicts.count ? e->dicts.count : 1, sizeof *e->runs);
    for (Py_ssize_t k = 0; k < e->dicts.count; k++) {
        Run *last = e->runs + e->run_count - 1;
        if (!e->run_count || last->dict != e->dicts.items[k].a)
            e->runs[e->run_count++] = (Run){e->dicts.items[k].a, k, k + 1, 0};
        else last->end = k + 1;
    }
    PyObject *ranges = PyDict_GetItemString(spec, "ranges");
    e->range_count = PyList_GET_SIZE(ranges);
    e->ranges = PyMem_Calloc(e->range_count ? e->range_count : 1, sizeof *e->ranges);
    for (Py_ssize_t k = 0; k < e->range_count; k++)
        e->ranges[k] = (uintptr_t)PyLong_AsUnsignedLongLong(PyList_GET_ITEM(ranges, k));
    e->limit = PyLong_AsLong(PyDict_GetItemString(spec, "limit"));
    e->is_long = PyLong_AsLong(PyDict_GetItemString(spec, "long"));
    e->table = PyLong_AsVoidPtr(PyDict_GetItemString(spec, "table"));
    e->set_threads = (void (*)(int))PyLong_AsVoidPtr(PyDict_GetItemString(spec, "set_threads"));
    e->get_threads = (int (*)(void))PyLong_AsVoidPtr(PyDict_GetItemString(spec, "get_threads"));
    PyObject *list = PyDict_GetItemString(spec, "arguments");
    e->argument_count = PyList_GET_SIZE(list);
    e->arguments = PyMem_Calloc(e->argument_count ? e->argument_count : 1, sizeof(Argument));
    for (Py_ssize_t k = 0; k < e->argument_count; k++) {
        Argument *a = &e->arguments[k];
        PyObject *shape;
        unsigned long long copy;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(list, k), "O!iOKnnn", &PyTuple_Type, &shape, &a->type,
                              &a->kind, &copy, &a->bytes, &a->first, &a->end))
            goto fail;
        a->copy = (char *)(uintptr_t)copy;
        a->ndim = (int)PyTuple_GET_SIZE(shape);
        if (a->ndim > 8) {
            PyErr_SetString(PyExc_ValueError, "too many axes");
            goto fail;
        }
        for (int d = 0; d < a->ndim; d++)
            a->dims[d] = PyLong_AsSsize_t(PyTuple_GET_ITEM(shape, d));
    }
    if (PyErr_Occurred()) goto fail;
    return (PyObject *)e;
fail:
    Py_DECREF(e);
    return NULL;
}

static int entry_traverse(PyObject *self, visitproc visit, void *arg) {
    Py_VISIT(((Entry *)self)->keep);
    return 0;
}

static int entry_clear(PyObject *self) {
    Entry *e = (Entry *)self;
    e->argument_count = -1; /* never called again: what it refers to may be gone */
    Py_CLEAR(e->keep);
    return 0;
}

static void entry_dealloc(PyObject *self) {
    Entry *e = (Entry *)self;
    PyObject_GC_UnTrack(self);
    Items *all[] = {&e->tensors, &e->hooks, &e->cells, &e->dicts, &e->sizes, &e->items, &e->attributes,
                    &e->functions, &e->contents, &e->leaves, &e->modules, &e->classes, &e->rates,
                    &e->draws, &e->words, &e->gradients, &e->results, &e->overwritten, &e->segments, &e->places};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) PyMem_Free(all[k]->items);
    PyMem_Free(e->arguments);
    PyMem_Free(e->ranges);
    PyMem_Free(e->runs);
    Py_CLEAR(e->keep);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef entry_members[] = {
    {"count", T_LONG, offsetof(Entry, count), READONLY, "how often it ran"},
    {"is_long", T_LONG, offsetof(Entry, is_long), READONLY, "whether other threads go on meanwhile"},
    {NULL},
};

static PyMethodDef entry_methods[] = {
    {"hold", entry_hold, METH_VARARGS, "whether the program is for a call with these arguments"},
    {NULL},
};

static PyTypeObject EntryType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "tensorgrad_entry.Entry",
    .tp_basicsize = sizeof(Entry),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_doc = "A program that can be called.",
    .tp_new = entry_new,
    .tp_call = entry_call,
    .tp_traverse = entry_traverse,
    .tp_clear = entry_clear,
    .tp_dealloc = entry_dealloc,
    .tp_members = entry_members,
    .tp_methods = entry_methods,
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tensorgrad_entry", NULL, -1, NULL};

PyMODINIT_FUNC PyInit_tensorgrad_entry(void) {
    import_array();
    name_position = PyUnicode_InternFromString("_position");
    name_key = PyUnicode_InternFromString("_key");
    name_latest = PyUnicode_InternFromString("LATEST_VERSION");
    name_default = PyUnicode_InternFromString("_default");
    if (PyType_Ready(&EntryType) < 0) return NULL;
    PyObject *m = PyModule_Create(&module);
    if (!m) return NULL;
    Py_INCREF(&EntryType);
    if (PyModule_AddObject(m, "Entry", (PyObject *)&EntryType) < 0) return NULL;
    return m;
}
