/*
 * wray.h: tasks and actors of wray, in C. docs/LANGUAGES.md is the way in, and
 * docs/ABI.md says what the host promises underneath.
 *
 * One file of a program says what the others use:
 *
 *	#define WRAY_IMPLEMENTATION
 *	#include "wray.h"
 *
 *	WRAY_TASK(square)                       // sdk.Import[int, int](m, "square")
 *	{
 *		int64_t n;
 *		if (wray_arg_int(call, 0, &n))
 *			wray_return_int(call, n * n);
 *	}
 *
 *	static int64_t count;                   // an actor's state: all that is static, and the heap
 *
 *	WRAY_ACTOR(counter)                     // sdk.ImportActor[Counter, int](m, "counter")
 *	{
 *		wray_arg_int(call, 0, &count);
 *	}
 *
 *	WRAY_METHOD(counter, add)               // sdk.ImportMethod[int, int](counter, "add")
 *	{
 *		int64_t by;
 *		if (!wray_arg_int(call, 0, &by))
 *			return;
 *		count += by;
 *		wray_return_int(call, count);
 *	}
 *
 *	clang --target=wasm32-wasi -mexec-model=reactor -O2 -o counter.wasm counter.c
 *
 * What reads an argument, or gives a result, returns false where it could not.
 * The call has then failed with an error that says why; the function returns.
 * What does not belong to a call returns a wray_errno, 0 for success.
 *
 * Memory: what an argument points to is there until the call has ended. The
 * rest says whose it is. A program has one thread, and a sandbox one call at a
 * time. The file with WRAY_IMPLEMENTATION is C; the part about CBOR is for any
 * machine.
 */
#ifndef WRAY_H
#define WRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- values --------------------------------------------------------------- */

/* A handle names an object in this sandbox, as a descriptor names a file. 0 is
 * none. Whoever has one gives it back with wray_drop. */
typedef uint32_t wray_handle;

/* How a value is written. */
enum {
	WRAY_RAW = 1,     /* bytes; a []byte in Go */
	WRAY_CBOR = 2,    /* one item of RFC 8949; what Go does not send otherwise */
	WRAY_NUMERIC = 3, /* little-endian numbers, of which meta says the kind; a slice of numbers in Go */
	WRAY_ARROW = 4,   /* an Arrow IPC stream of one record batch */
	WRAY_ERROR = 5    /* a failure; see wray_failure_message */
};

/* Kinds of numbers. */
enum {
	WRAY_I8 = 1, WRAY_I16 = 2, WRAY_I32 = 3, WRAY_I64 = 4,
	WRAY_U8 = 5, WRAY_U16 = 6, WRAY_U32 = 7, WRAY_U64 = 8,
	WRAY_F32 = 9, WRAY_F64 = 10
};

typedef struct wray_value {
	uint32_t encoding;
	uint32_t meta; /* the kind of numbers, else 0 */
	const void *data;
	uint32_t len; /* bytes */
	const wray_handle *refs; /* the references in it, by their index */
	uint32_t nrefs;
} wray_value;

/* --- CBOR ------------------------------------------------------------------ */

/* A writer. {0} is an empty one; wray_cbor_free lets its memory go. It holds no
 * references itself: the handles are the caller's. An array or a map has as many
 * items, or pairs of items, after its head as that says. */
typedef struct wray_cbor {
	uint8_t *data;
	uint32_t len, cap;
	wray_handle *refs;
	uint32_t nrefs, refs_cap;
} wray_cbor;

void wray_put_int(wray_cbor *c, int64_t n);
void wray_put_uint(wray_cbor *c, uint64_t n);
void wray_put_double(wray_cbor *c, double x);
void wray_put_bool(wray_cbor *c, bool b);
void wray_put_null(wray_cbor *c);
void wray_put_text(wray_cbor *c, const char *s); /* UTF-8, to its zero byte */
void wray_put_text_n(wray_cbor *c, const char *s, size_t len);
void wray_put_bytes(wray_cbor *c, const void *p, size_t len);
void wray_put_array(wray_cbor *c, uint64_t items);
void wray_put_map(wray_cbor *c, uint64_t pairs);
void wray_put_ref(wray_cbor *c, wray_handle h); /* a sdk.Ref or sdk.Handle in Go */
void wray_cbor_free(wray_cbor *c);
wray_value wray_cbor_value(const wray_cbor *c); /* borrows from c */

/* A reader of items one after the other. What does not find what it is asked
 * for returns false and moves nothing. Text and bytes are borrowed from the
 * value, and text has no zero byte at its end. */
typedef struct wray_reader {
	const uint8_t *at, *end;
	const wray_handle *refs;
	uint32_t nrefs;
} wray_reader;

enum { WRAY_IS_INT = 1, WRAY_IS_BYTES, WRAY_IS_TEXT, WRAY_IS_ARRAY, WRAY_IS_MAP, WRAY_IS_REF,
	WRAY_IS_BOOL, WRAY_IS_NULL, WRAY_IS_DOUBLE, WRAY_IS_OTHER };

wray_reader wray_read(const wray_value *v);
int wray_read_type(const wray_reader *r); /* of the next item; 0 at the end, and where nothing can be read */
bool wray_read_int(wray_reader *r, int64_t *n);
bool wray_read_uint(wray_reader *r, uint64_t *n);
bool wray_read_double(wray_reader *r, double *x); /* integers, too */
bool wray_read_bool(wray_reader *r, bool *b);
bool wray_read_null(wray_reader *r);
bool wray_read_text(wray_reader *r, const char **s, size_t *len);
bool wray_read_bytes(wray_reader *r, const void **p, size_t *len);
bool wray_read_array(wray_reader *r, uint64_t *items);
bool wray_read_map(wray_reader *r, uint64_t *pairs);
bool wray_read_ref(wray_reader *r, wray_handle *h); /* borrowed from the value */
bool wray_read_skip(wray_reader *r);                /* one item with all in it */

#ifdef __wasm32__

/* --- declaring ------------------------------------------------------------- */

/* A call that runs. */
typedef struct wray_call wray_call;
typedef void wray_function(wray_call *call);

/* WRAY_TASK(name) { … } declares a task and defines it; the body has `call`. */
#define WRAY_TASK(id) WRAY_DECLARE_(id, #id, "", WRAY_KIND_TASK_)
/* WRAY_ACTOR(class) { … } declares a class of actors; the body is the
 * constructor. It needs to return nothing. Each actor is a sandbox of its own, so
 * its state is in static variables and the heap. */
#define WRAY_ACTOR(class_) WRAY_DECLARE_(class_, #class_, #class_, WRAY_KIND_ACTOR_)
/* WRAY_METHOD(class, name) { … } declares a method of a class. */
#define WRAY_METHOD(class_, id) WRAY_DECLARE_(class_##_##id, #class_ "." #id, #class_, WRAY_KIND_METHOD_)

enum { WRAY_KIND_TASK_, WRAY_KIND_ACTOR_, WRAY_KIND_METHOD_ };
void wray_declare_(const char *name, const char *class_, int kind, wray_function *f);
#define WRAY_DECLARE_(id, name, class_, kind) \
	static void wray_run_##id(wray_call *call); \
	__attribute__((constructor)) static void wray_declare_##id(void) { wray_declare_(name, class_, kind, wray_run_##id); } \
	static void wray_run_##id(wray_call *call)

/* What a program may define. The driver, for a module that is a program by
 * itself; what it returns is the exit code of wray run. */
int wray_main(void) __attribute__((weak));
/* Called before the first call in a sandbox, all of which start from one
 * snapshot: draw random seeds here, not in a constructor. */
void wray_restored(void) __attribute__((weak));

/* --- a call's input -------------------------------------------------------- */

uint32_t wray_nargs(const wray_call *call);
uint32_t wray_nresults(const wray_call *call);
uint32_t wray_attempt(const wray_call *call); /* from 1 */
bool wray_wants_stream(const wray_call *call);
/* Whether the call was canceled: a function that runs for long looks now and
 * then, and fails; it is stopped some time after. */
bool wray_canceled(wray_call *call);

/* Argument i as it is. Large ones are mapped, not copied; writing to them changes
 * nothing but this sandbox's view. The handles in it are the call's: wray_dup one
 * that is to be kept. */
bool wray_arg(wray_call *call, uint32_t i, wray_value *v);
bool wray_arg_int(wray_call *call, uint32_t i, int64_t *n);
bool wray_arg_double(wray_call *call, uint32_t i, double *x);
bool wray_arg_bool(wray_call *call, uint32_t i, bool *b);
bool wray_arg_text(wray_call *call, uint32_t i, const char **s, size_t *len); /* no zero byte at its end */
bool wray_arg_bytes(wray_call *call, uint32_t i, const void **p, size_t *len);
bool wray_arg_numbers(wray_call *call, uint32_t i, uint32_t kind, const void **p, size_t *n); /* n numbers */
bool wray_arg_ref(wray_call *call, uint32_t i, wray_handle *h);
bool wray_arg_reader(wray_call *call, uint32_t i, wray_reader *r);

/* --- its results ----------------------------------------------------------- */

/* Result i of a task; most have one. A task that gives none of its one result
 * gives an empty map, which is a struct{} in Go. */
bool wray_return(wray_call *call, uint32_t i, const wray_value *v);
bool wray_return_int(wray_call *call, int64_t n);
bool wray_return_double(wray_call *call, double x);
bool wray_return_bool(wray_call *call, bool b);
bool wray_return_text(wray_call *call, const char *s);
bool wray_return_bytes(wray_call *call, const void *p, size_t len);
bool wray_return_numbers(wray_call *call, uint32_t kind, const void *p, size_t n);
bool wray_return_ref(wray_call *call, wray_handle h); /* the reference; the handle stays yours */
bool wray_return_cbor(wray_call *call, wray_cbor *c); /* and frees c */
bool wray_return_object(wray_call *call, uint32_t i, wray_handle h); /* the object's value, without copying it */

/* The next item of a stream; waits while the reader has enough. */
bool wray_yield(wray_call *call, const wray_value *v);

/* Fails the call. What was failed first stays. With a name, the error matches in
 * Go what sdk.RegisterError gave that name. */
void wray_fail(wray_call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));
void wray_fail_as(wray_call *call, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same because of a value that is a failure, which becomes its cause. */
void wray_fail_because(wray_call *call, const wray_value *failure, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool wray_failed(const wray_call *call);

/* --- errno ----------------------------------------------------------------- */

typedef uint32_t wray_errno; /* WASI's numbers */
enum {
	WRAY_SUCCESS = 0, WRAY_E2BIG = 1, WRAY_EAGAIN = 6, WRAY_EBADF = 8, WRAY_ECANCELED = 11, WRAY_EEXIST = 20,
	WRAY_EFAULT = 21, WRAY_EINVAL = 28, WRAY_EIO = 29, WRAY_EMSGSIZE = 35, WRAY_ENOENT = 44, WRAY_ENOMEM = 48,
	WRAY_ENOSPC = 51, WRAY_ENOSYS = 52, WRAY_ENOTSUP = 58, WRAY_EOVERFLOW = 61, WRAY_EPERM = 63
};

/* --- objects --------------------------------------------------------------- */

/* An object's value in memory, until wray_release. Its handles are let go then. */
typedef struct wray_object {
	wray_value value; /* encoding WRAY_ERROR: the task that should have made it failed */
	void *memory_;
	uint32_t mapped_;
} wray_object;

wray_errno wray_put(const wray_value *v, wray_handle *h);   /* waits while the store is full */
wray_errno wray_get(wray_handle h, wray_object *o);         /* waits for it; other tasks have the processor meanwhile */
void wray_release(wray_object *o);
/* Waits until `least` of n objects are there, or for so long (< 0: without end).
 * ready[i] becomes 1 for those that are. */
wray_errno wray_wait(const wray_handle *hs, uint32_t n, uint32_t least, int64_t timeout_ns, uint8_t *ready);
wray_errno wray_dup(wray_handle h, wray_handle *copy);
void wray_drop(wray_handle h); /* 0 is allowed */
wray_errno wray_free(wray_handle h); /* drops the value, whoever has handles */

/* What a failure says: its code (wray.Code), and its message, cut to cap bytes
 * with the zero byte. */
uint32_t wray_failure_message(const wray_value *failure, char *buf, size_t cap);

/* --- running tasks and actors ---------------------------------------------- */

/* An argument: a value, which is copied, or the value of an object. */
typedef struct wray_argument {
	uint32_t kind; /* 0: value; 1: what the handle names */
	wray_handle handle;
	wray_value value;
} wray_argument;

wray_argument wray_pass(const wray_value *v);
wray_argument wray_pass_cbor(const wray_cbor *c); /* borrows from c until the call is submitted */
wray_argument wray_pass_bytes(const void *p, size_t len);
wray_argument wray_pass_object(wray_handle h);

/* Flags of a wray_spec. */
enum {
	WRAY_FRESH = 1, WRAY_STREAM = 2, WRAY_RETRY_ERRORS = 4, WRAY_HAS_CPU = 8, WRAY_HAS_RETRIES = 16,
	WRAY_IS_ACTOR = 32, WRAY_NAMED = 64, WRAY_GET_IF_EXISTS = 128, WRAY_DETACHED = 256, WRAY_DURABLE = 512, WRAY_CHECKPOINT = 1024,
	WRAY_IS_GROUP = 2048, WRAY_IN_GROUP = 4096, WRAY_CAPTURE = 8192
};

/* What is to run, as docs/ABI.md describes struct task_spec. {0} has every
 * default. */
typedef struct wray_spec {
	uint32_t fn, flags;
	const wray_argument *args;
	uint32_t nargs;
	wray_handle *results; /* written by wray_submit */
	uint32_t nresults;
	const char *name;
	uint32_t name_len;
	uint32_t cpu;
	int32_t retries;
	uint64_t memory;
	uint64_t timeout_ns;
	const char *retry_on;
	uint32_t retry_on_len;
	uint32_t window;
	wray_handle actor; /* that is called; with WRAY_IN_GROUP the placement group that the task runs in */
	int32_t call_tries;
	uint32_t max_pending;
	uint64_t idle_ns;
	uint32_t concurrency;
	uint32_t checkpoint_calls;
	uint64_t checkpoint_ns;
	const char *custom;
	uint32_t custom_len;
	const char *key; /* of a call of a durable actor: what tells a repeated call; of a task or an actor its grants */
	uint32_t key_len;
	const char *place; /* which nodes it runs on: "spread\0\0", "node\0NAME\0", "prefer\0NAME\0", "where\0zone=west\0";
	                    * with WRAY_IS_GROUP the group: "strategy\0pack\0" "bundle\0\0" "cpu\0" "1\0"; with WRAY_IN_GROUP "0", a bundle */
	uint32_t place_len;
} wray_spec;

/* The number of a function: a task's name, a class's, or "class.method". An empty
 * module is this one. */
wray_errno wray_lookup(const char *module, const char *name, uint32_t *fn);
wray_errno wray_submit(wray_spec *specs, uint32_t n); /* waits while too much is queued */
/* A task, a new actor, a call of one, each with one result and no options. */
wray_errno wray_remote(uint32_t fn, const wray_argument *args, uint32_t n, wray_handle *result);
wray_errno wray_new_actor(uint32_t class_, const wray_argument *args, uint32_t n, wray_handle *actor);
wray_errno wray_call_method(uint32_t method, wray_handle actor, const wray_argument *args, uint32_t n, wray_handle *result);
wray_errno wray_cancel(wray_handle result);
wray_errno wray_find_actor(const char *name, wray_handle *actor);
wray_errno wray_kill(wray_handle actor, bool restart);
/* In a method: a checkpoint is taken when it has returned, before its answer. */
wray_errno wray_checkpoint(void);

/* --- the imports ----------------------------------------------------------- */

typedef struct wray_info { uint32_t encoding, meta; uint64_t len; uint32_t nrefs, flags; uint64_t reserved_; } wray_info;

typedef struct wray_http_request { /* headers: of each its name, a zero byte, its value, a zero byte */
	const char *url; uint32_t url_len; const char *method; uint32_t method_len;
	const char *headers; uint32_t headers_len; wray_handle body; uint32_t flags; uint64_t timeout_ns;
} wray_http_request;

#define WRAY_IMPORT_(name) __attribute__((import_module("wray_v1"), import_name(#name))) wray_errno wray_v1_##name
WRAY_IMPORT_(version)(void);
WRAY_IMPORT_(declare)(const char *name, uint32_t len, uint32_t index, uint32_t flags);
WRAY_IMPORT_(function)(const char *module, uint32_t module_len, const char *name, uint32_t len, uint32_t *fn);
WRAY_IMPORT_(submit)(wray_spec *specs, uint32_t n, uint32_t *done);
WRAY_IMPORT_(cancel)(wray_handle h);
WRAY_IMPORT_(task_input)(void *buf, uint32_t cap, uint32_t *len);
WRAY_IMPORT_(task_next)(const void *value, void *buf, uint32_t cap, uint32_t *len);
WRAY_IMPORT_(task_return)(uint32_t index, const wray_value *v);
WRAY_IMPORT_(task_fail)(const wray_value *v);
WRAY_IMPORT_(task_yield)(const wray_value *v);
WRAY_IMPORT_(object_put)(const wray_value *v, wray_handle *h);
WRAY_IMPORT_(object_get)(wray_handle h, void *buf, uint32_t cap, wray_info *info, uint32_t flags);
WRAY_IMPORT_(object_refs)(wray_handle h, wray_handle *refs, uint32_t cap);
WRAY_IMPORT_(object_watch)(const wray_handle *hs, uint32_t n);
WRAY_IMPORT_(object_wait)(const wray_handle *hs, uint32_t n, uint32_t least, int64_t timeout_ns, uint8_t *ready);
WRAY_IMPORT_(object_map)(wray_handle h, void *p, uint32_t len, int64_t offset);
WRAY_IMPORT_(object_unmap)(void *p, uint32_t len);
WRAY_IMPORT_(object_read)(wray_handle h, int64_t offset, void *buf, uint32_t len, uint32_t *n);
WRAY_IMPORT_(object_free)(wray_handle h);
WRAY_IMPORT_(buffer_open)(int64_t len, wray_handle *h);
WRAY_IMPORT_(buffer_seal)(wray_handle h, uint32_t encoding, uint32_t meta, int64_t len, wray_handle *object);
WRAY_IMPORT_(handle_dup)(wray_handle h, wray_handle *copy);
WRAY_IMPORT_(handle_drop)(const wray_handle *hs, uint32_t n);
WRAY_IMPORT_(stream_next)(wray_handle h, wray_handle *item, uint32_t flags);
WRAY_IMPORT_(event_open)(uint32_t *fd);
WRAY_IMPORT_(actor)(const char *name, uint32_t len, wray_handle *h);
WRAY_IMPORT_(kill)(wray_handle h, uint32_t flags);
WRAY_IMPORT_(http_fetch)(const wray_http_request *r, wray_handle *stream);
WRAY_IMPORT_(refusal)(void *buf, uint32_t cap, uint32_t *len);

#endif /* __wasm32__ */

#ifdef __cplusplus
}
#endif

/* ========================================================================== */

#ifdef WRAY_IMPLEMENTATION

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRAY_REF_TAG_ 0x77726179u /* "wray" */

/* A program that is out of memory ends here, as a trap: to the caller that is
 * the end of the sandbox, and no value is half written. */
static void *wray_grown_(void *p, size_t size)
{
	p = realloc(p, size ? size : 1);
	if (p == NULL) {
		fputs("wray: out of memory\n", stderr);
		abort();
	}
	return p;
}

/* --- CBOR ------------------------------------------------------------------ */

static uint8_t *wray_room_(wray_cbor *c, size_t n)
{
	if (n > c->cap - c->len) {
		size_t want = (size_t)c->len + n, cap = (size_t)c->cap * 2;
		if (want > UINT32_MAX / 2)
			abort(); /* half of the address space */
		if (cap < want)
			cap = want < 64 ? 64 : want;
		c->data = (uint8_t *)wray_grown_(c->data, cap);
		c->cap = (uint32_t)cap;
	}
	c->len += (uint32_t)n;
	return c->data + c->len - n;
}

static void wray_head_(wray_cbor *c, uint8_t major, uint64_t n)
{
	int bytes = n < 24 ? 0 : n <= 0xff ? 1 : n <= 0xffff ? 2 : n <= 0xffffffff ? 4 : 8;
	uint8_t *p = wray_room_(c, 1 + (size_t)bytes);
	*p++ = (uint8_t)(major << 5 | (bytes == 0 ? (int)n : bytes == 1 ? 24 : bytes == 2 ? 25 : bytes == 4 ? 26 : 27));
	for (int i = bytes - 1; i >= 0; i--)
		*p++ = (uint8_t)(n >> (8 * i));
}

void wray_put_int(wray_cbor *c, int64_t n)
{
	if (n < 0)
		wray_head_(c, 1, ~(uint64_t)n);
	else
		wray_head_(c, 0, (uint64_t)n);
}

void wray_put_uint(wray_cbor *c, uint64_t n) { wray_head_(c, 0, n); }

void wray_put_double(wray_cbor *c, double x)
{
	uint64_t bits;
	memcpy(&bits, &x, 8);
	uint8_t *p = wray_room_(c, 9);
	*p++ = 0xfb;
	for (int i = 7; i >= 0; i--)
		*p++ = (uint8_t)(bits >> (8 * i));
}

void wray_put_bool(wray_cbor *c, bool b) { *wray_room_(c, 1) = b ? 0xf5 : 0xf4; }
void wray_put_null(wray_cbor *c) { *wray_room_(c, 1) = 0xf6; }
void wray_put_text(wray_cbor *c, const char *s) { wray_put_text_n(c, s, strlen(s)); }

static void wray_string_(wray_cbor *c, uint8_t major, const void *p, size_t len)
{
	wray_head_(c, major, len);
	uint8_t *to = wray_room_(c, len);
	if (len > 0)
		memcpy(to, p, len);
}

void wray_put_text_n(wray_cbor *c, const char *s, size_t len) { wray_string_(c, 3, s, len); }
void wray_put_bytes(wray_cbor *c, const void *p, size_t len) { wray_string_(c, 2, p, len); }
void wray_put_array(wray_cbor *c, uint64_t items) { wray_head_(c, 4, items); }
void wray_put_map(wray_cbor *c, uint64_t pairs) { wray_head_(c, 5, pairs); }

void wray_put_ref(wray_cbor *c, wray_handle h)
{
	if (c->nrefs == c->refs_cap) {
		c->refs_cap = c->refs_cap ? c->refs_cap * 2 : 4;
		c->refs = (wray_handle *)wray_grown_(c->refs, c->refs_cap * sizeof *c->refs);
	}
	wray_head_(c, 6, WRAY_REF_TAG_);
	wray_head_(c, 0, c->nrefs);
	c->refs[c->nrefs++] = h;
}

void wray_cbor_free(wray_cbor *c)
{
	free(c->data);
	free(c->refs);
	memset(c, 0, sizeof *c);
}

wray_value wray_cbor_value(const wray_cbor *c)
{
	wray_value v = {WRAY_CBOR, 0, c->data, c->len, c->refs, c->nrefs};
	return v;
}

wray_reader wray_read(const wray_value *v)
{
	const uint8_t *p = (const uint8_t *)v->data;
	wray_reader r = {p, p, v->refs, v->nrefs};
	if (v->encoding == WRAY_CBOR || v->encoding == WRAY_ERROR)
		r.end = p + v->len;
	return r;
}

/* Cuts the head of an item of definite length off r, if it is of that type. */
static bool wray_cut_(wray_reader *r, unsigned major, uint64_t *n)
{
	const uint8_t *p = r->at;
	if (p >= r->end || *p >> 5 != major)
		return false;
	unsigned info = *p++ & 31, bytes = info < 24 ? 0 : 1u << (info - 24);
	if (info > 27 || (size_t)(r->end - p) < bytes)
		return false;
	*n = info;
	if (bytes > 0)
		*n = 0;
	for (unsigned i = 0; i < bytes; i++)
		*n = *n << 8 | *p++;
	r->at = p;
	return true;
}

int wray_read_type(const wray_reader *r)
{
	static const int types[] = {WRAY_IS_INT, WRAY_IS_INT, WRAY_IS_BYTES, WRAY_IS_TEXT, WRAY_IS_ARRAY, WRAY_IS_MAP};
	wray_reader c = *r;
	uint64_t n;
	if (c.at >= c.end || !wray_cut_(&c, *r->at >> 5, &n))
		return 0;
	if (*r->at >> 5 < 6)
		return types[*r->at >> 5];
	switch (*r->at) {
	case 0xf4: case 0xf5:
		return WRAY_IS_BOOL;
	case 0xf6: case 0xf7:
		return WRAY_IS_NULL;
	case 0xf9: case 0xfa: case 0xfb:
		return WRAY_IS_DOUBLE;
	}
	return *r->at >> 5 == 6 && n == WRAY_REF_TAG_ ? WRAY_IS_REF : WRAY_IS_OTHER;
}

bool wray_read_int(wray_reader *r, int64_t *n)
{
	wray_reader c = *r;
	uint64_t u;
	bool below = false;
	if (!wray_cut_(&c, 0, &u)) {
		if (!wray_cut_(&c, 1, &u))
			return false;
		below = true;
	}
	if (u > INT64_MAX)
		return false;
	*n = below ? -1 - (int64_t)u : (int64_t)u;
	*r = c;
	return true;
}

bool wray_read_uint(wray_reader *r, uint64_t *n) { return wray_cut_(r, 0, n); }

bool wray_read_double(wray_reader *r, double *x)
{
	int64_t i;
	uint64_t n;
	if (wray_read_int(r, &i)) {
		*x = (double)i;
		return true;
	}
	if (wray_read_type(r) != WRAY_IS_DOUBLE)
		return false;
	uint8_t width = *r->at;
	wray_cut_(r, 7, &n);
	if (width == 0xfb) {
		memcpy(x, &n, 8);
	} else if (width == 0xfa) {
		uint32_t bits = (uint32_t)n;
		float f;
		memcpy(&f, &bits, 4);
		*x = f;
	} else { /* half precision, RFC 8949 appendix D */
		int e = (int)(n >> 10 & 31), m = (int)(n & 1023);
		double v = e == 31 ? (m ? __builtin_nan("") : __builtin_inf()) : e ? 1024 + m : m;
		if (e != 31) {
			for (e = e ? e - 25 : -24; e > 0; e--)
				v *= 2;
			for (; e < 0; e++)
				v /= 2;
		}
		*x = n >> 15 ? -v : v;
	}
	return true;
}

bool wray_read_bool(wray_reader *r, bool *b)
{
	if (wray_read_type(r) != WRAY_IS_BOOL)
		return false;
	*b = *r->at++ == 0xf5;
	return true;
}

bool wray_read_null(wray_reader *r)
{
	if (wray_read_type(r) != WRAY_IS_NULL)
		return false;
	r->at++;
	return true;
}

static bool wray_cut_string_(wray_reader *r, unsigned major, const void **p, size_t *len)
{
	wray_reader c = *r;
	uint64_t n;
	if (!wray_cut_(&c, major, &n) || n > (uint64_t)(c.end - c.at))
		return false;
	*p = c.at;
	*len = (size_t)n;
	c.at += n;
	*r = c;
	return true;
}

bool wray_read_text(wray_reader *r, const char **s, size_t *len)
{
	const void *p;
	if (!wray_cut_string_(r, 3, &p, len))
		return false;
	*s = (const char *)p;
	return true;
}

bool wray_read_bytes(wray_reader *r, const void **p, size_t *len) { return wray_cut_string_(r, 2, p, len); }

/* The head of an array or a map. An item has at least one byte, so that a head
 * which promises more than there is says nothing true: loops over what it
 * promises end. */
static bool wray_cut_many_(wray_reader *r, unsigned major, uint64_t least, uint64_t *n)
{
	wray_reader c = *r;
	if (!wray_cut_(&c, major, n) || *n > (uint64_t)(c.end - c.at) / least)
		return false;
	*r = c;
	return true;
}

bool wray_read_array(wray_reader *r, uint64_t *items) { return wray_cut_many_(r, 4, 1, items); }
bool wray_read_map(wray_reader *r, uint64_t *pairs) { return wray_cut_many_(r, 5, 2, pairs); }

bool wray_read_ref(wray_reader *r, wray_handle *h)
{
	wray_reader c = *r;
	uint64_t n;
	if (!wray_cut_(&c, 6, &n) || n != WRAY_REF_TAG_ || !wray_cut_(&c, 0, &n) || n >= c.nrefs)
		return false;
	*h = c.refs[n];
	*r = c;
	return true;
}

bool wray_read_skip(wray_reader *r)
{
	wray_reader c = *r;
	uint64_t left = 1, n;
	/* A counter in place of recursion: values nest as deeply as they like. No
	 * item promises more others than there are bytes, so it does not overflow. */
	for (; left > 0; left--) {
		const void *p;
		size_t len;
		if (c.at >= c.end)
			return false;
		switch (*c.at >> 5) {
		case 2: case 3:
			if (!wray_cut_string_(&c, *c.at >> 5, &p, &len))
				return false;
			break;
		case 4:
			if (!wray_read_array(&c, &n))
				return false;
			left += n;
			break;
		case 5:
			if (!wray_read_map(&c, &n))
				return false;
			left += 2 * n;
			break;
		case 6:
			if (!wray_cut_(&c, 6, &n))
				return false;
			left++;
			break;
		default:
			if (!wray_cut_(&c, *c.at >> 5, &n))
				return false;
		}
	}
	*r = c;
	return true;
}

#ifdef __wasm32__

#include <wasi/api.h>

_Static_assert(sizeof(wray_value) == 24 && offsetof(wray_value, data) == 8 && offsetof(wray_value, nrefs) == 20, "struct value");
_Static_assert(sizeof(wray_argument) == 32 && offsetof(wray_argument, value) == 8, "struct arg");
_Static_assert(sizeof(wray_info) == 32 && offsetof(wray_info, flags) == 20, "struct info");
_Static_assert(sizeof(wray_http_request) == 40 && offsetof(wray_http_request, body) == 24 && offsetof(wray_http_request, timeout_ns) == 32, "struct http_request");
_Static_assert(sizeof(wray_spec) == 128 && offsetof(wray_spec, args) == 8 && offsetof(wray_spec, results) == 16 &&
	offsetof(wray_spec, name) == 24 && offsetof(wray_spec, cpu) == 32 && offsetof(wray_spec, memory) == 40 &&
	offsetof(wray_spec, timeout_ns) == 48 && offsetof(wray_spec, retry_on) == 56 && offsetof(wray_spec, window) == 64 &&
	offsetof(wray_spec, actor) == 68 && offsetof(wray_spec, max_pending) == 76 && offsetof(wray_spec, idle_ns) == 80 &&
	offsetof(wray_spec, concurrency) == 88 && offsetof(wray_spec, checkpoint_ns) == 96 && offsetof(wray_spec, custom) == 104 &&
	offsetof(wray_spec, key) == 112 && offsetof(wray_spec, place) == 120, "struct task_spec");

/* What the host tells of a call, and of each of its arguments. */
struct wray_head_of_call_ {
	uint32_t index, nargs, nresults, flags, attempt, name_len;
	int64_t timeout_ns;
	uint64_t task_owner, task_seq, items_done, reserved;
};
struct wray_call_arg_ { uint32_t encoding, meta; uint64_t len; uint32_t handle, offset, nrefs, reserved; };
struct wray_event_ { uint32_t kind, handle; uint64_t arg; };

_Static_assert(sizeof(struct wray_head_of_call_) == 64 && sizeof(struct wray_call_arg_) == 32 && sizeof(struct wray_event_) == 16, "struct call");

enum { WRAY_OP_WARMUP_ = 1, WRAY_OP_RESTORE_ = 2, WRAY_OP_MAIN_ = 3, WRAY_OP_TASK_ = 4, WRAY_OP_RECLAIM_ = 5 };
enum { WRAY_CALL_STREAM_ = 1, WRAY_CALL_ACTOR_ = 2 };
enum { WRAY_EVENT_READY_ = 1, WRAY_EVENT_CANCEL_ = 3 };
enum { WRAY_CODE_USER_ERROR_ = 2, WRAY_CODE_CANCELED_ = 6, WRAY_CODE_UNKNOWN_FUNCTION_ = 16, WRAY_CODE_BAD_ARGUMENT_ = 17, WRAY_CODE_DEPENDENCY_FAILED_ = 24 };
enum { WRAY_WATCH_ = 1, WRAY_MAPPABLE_ = 1, WRAY_NO_OFFSET_ = 0xffffffff, WRAY_PAGE_ = 64 << 10 };

/* An object that an argument was read from, until the call has ended. */
struct wray_held_ { struct wray_held_ *next; wray_object object; };

struct wray_call {
	const struct wray_head_of_call_ *head;
	const struct wray_call_arg_ *args;
	const uint8_t *input;
	uint64_t items; /* of a stream, given so far, those of earlier attempts included */
	bool failed, returned, canceled;
	struct wray_held_ *held;
};

static struct wray_declared_ { const char *name, *class_; int kind; wray_function *run; } *wray_functions_;
static uint32_t wray_nfunctions_;
static const char *wray_class_; /* of the actor that this sandbox is */
static wray_call *wray_current_;
static uint32_t wray_events_fd_ = UINT32_MAX;

void wray_declare_(const char *name, const char *class_, int kind, wray_function *f)
{
	wray_errno e = wray_v1_declare(name, (uint32_t)strlen(name), wray_nfunctions_, 0);
	if (e != WRAY_SUCCESS) {
		fprintf(stderr, "wray: %s cannot be declared (%u): is the name there twice?\n", name, (unsigned)e);
		exit(1);
	}
	wray_functions_ = (struct wray_declared_ *)wray_grown_(wray_functions_, (wray_nfunctions_ + 1) * sizeof *wray_functions_);
	struct wray_declared_ d = {name, class_, kind, f};
	wray_functions_[wray_nfunctions_++] = d;
}

/* --- events ---------------------------------------------------------------- */

static void wray_open_events_(void)
{
	if (wray_events_fd_ == UINT32_MAX && wray_v1_event_open(&wray_events_fd_) != WRAY_SUCCESS)
		wray_events_fd_ = UINT32_MAX;
}

/* Reads the events that are there. Reports whether one was READY of h. */
static bool wray_read_events_(wray_handle h)
{
	struct wray_event_ events[16];
	__wasi_iovec_t v = {(uint8_t *)events, sizeof events};
	__wasi_size_t n;
	bool ready = false;
	while (__wasi_fd_read((__wasi_fd_t)wray_events_fd_, &v, 1, &n) == 0 && n > 0) {
		for (size_t i = 0; i < n / sizeof events[0]; i++) {
			if (events[i].kind == WRAY_EVENT_READY_ && events[i].handle == h)
				ready = true;
			if (events[i].kind == WRAY_EVENT_CANCEL_ && wray_current_ != NULL && events[i].arg == wray_current_->head->task_seq)
				wray_current_->canceled = true;
		}
		if (n < sizeof events)
			break;
	}
	return ready;
}

/* Parks the sandbox until an event comes, or a time is over (< 0: without one),
 * and reads the events. READY of h is what it reports. */
static bool wray_park_(wray_handle h, int64_t timeout_ns)
{
	wray_open_events_();
	__wasi_subscription_t s[2];
	__wasi_event_t out[2];
	__wasi_size_t n;
	memset(s, 0, sizeof s);
	s[0].u.tag = __WASI_EVENTTYPE_FD_READ;
	s[0].u.u.fd_read.file_descriptor = (__wasi_fd_t)wray_events_fd_;
	s[1].u.tag = __WASI_EVENTTYPE_CLOCK;
	s[1].u.u.clock.id = __WASI_CLOCKID_MONOTONIC;
	s[1].u.u.clock.timeout = (__wasi_timestamp_t)timeout_ns;
	if (__wasi_poll_oneoff(s, out, timeout_ns < 0 ? 1 : 2, &n) != 0)
		abort(); /* it fails for bad arguments alone */
	return wray_read_events_(h);
}

/* --- objects --------------------------------------------------------------- */

/* Waits for h and says what it is. */
static wray_errno wray_await_(wray_handle h, wray_info *info)
{
	for (;;) {
		wray_errno e = wray_v1_object_get(h, NULL, 0, info, WRAY_WATCH_);
		if (e == WRAY_SUCCESS || e == WRAY_EOVERFLOW)
			return WRAY_SUCCESS;
		if (e != WRAY_EAGAIN)
			return e;
		while (!wray_park_(h, -1))
			;
	}
}

wray_errno wray_get(wray_handle h, wray_object *o)
{
	wray_info info;
	wray_errno e;
	memset(o, 0, sizeof *o);
	for (;;) {
		e = wray_await_(h, &info);
		if (e != WRAY_SUCCESS)
			return e;
		if (info.len > UINT32_MAX / 2)
			return WRAY_E2BIG; /* read it in parts, with wray_v1_object_read */
		uint32_t len = (uint32_t)info.len, whole = (len + WRAY_PAGE_ - 1) / WRAY_PAGE_ * WRAY_PAGE_;
		if (info.flags & WRAY_MAPPABLE_ && len >= WRAY_PAGE_ && (o->memory_ = aligned_alloc(WRAY_PAGE_, whole)) != NULL) {
			e = wray_v1_object_map(h, o->memory_, whole, 0);
			if (e == WRAY_SUCCESS)
				o->mapped_ = whole;
		} else {
			o->memory_ = malloc(len ? len : 1);
			e = o->memory_ == NULL ? WRAY_ENOMEM : wray_v1_object_get(h, o->memory_, len, &info, 0);
			if (e == WRAY_EOVERFLOW)
				e = WRAY_EAGAIN; /* it became a failure meanwhile, which says more */
		}
		if (e == WRAY_SUCCESS)
			break;
		free(o->memory_);
		memset(o, 0, sizeof *o);
		if (e != WRAY_EAGAIN) /* it went to disk meanwhile */
			return e;
	}
	o->value.encoding = info.encoding;
	o->value.meta = info.meta;
	o->value.data = o->memory_;
	o->value.len = (uint32_t)info.len;
	if (info.nrefs > 0) {
		wray_handle *refs = (wray_handle *)malloc(info.nrefs * sizeof *refs);
		e = refs == NULL ? WRAY_ENOMEM : wray_v1_object_refs(h, refs, info.nrefs);
		if (e != WRAY_SUCCESS) {
			free(refs);
			wray_release(o);
			return e;
		}
		o->value.refs = refs;
		o->value.nrefs = info.nrefs;
	}
	return WRAY_SUCCESS;
}

void wray_release(wray_object *o)
{
	if (o->mapped_ > 0)
		wray_v1_object_unmap(o->memory_, o->mapped_);
	free(o->memory_);
	if (o->value.nrefs > 0)
		wray_v1_handle_drop(o->value.refs, o->value.nrefs);
	free((void *)o->value.refs);
	memset(o, 0, sizeof *o);
}

wray_errno wray_put(const wray_value *v, wray_handle *h)
{
	wray_errno e;
	while ((e = wray_v1_object_put(v, h)) == WRAY_EAGAIN)
		wray_park_(0, -1);
	return e;
}

static uint64_t wray_now_(void)
{
	__wasi_timestamp_t now = 0;
	if (__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1, &now) != 0)
		abort(); /* every host has this clock */
	return now;
}

wray_errno wray_wait(const wray_handle *hs, uint32_t n, uint32_t least, int64_t timeout_ns, uint8_t *ready)
{
	uint64_t now = timeout_ns < 0 ? 0 : wray_now_(), end = now + (uint64_t)timeout_ns;
	for (bool watched = false;;) {
		wray_errno e = wray_v1_object_wait(hs, n, least, 0, ready); /* it only looks */
		uint32_t have = 0;
		for (uint32_t i = 0; i < n; i++)
			have += ready[i];
		if (e != WRAY_SUCCESS || have >= least || (timeout_ns >= 0 && now >= end))
			return e;
		if (!watched && (e = wray_v1_object_watch(hs, n)) != WRAY_SUCCESS)
			return e;
		watched = true;
		wray_park_(0, timeout_ns < 0 ? -1 : (int64_t)(end - now));
		if (timeout_ns >= 0)
			now = wray_now_();
	}
}

wray_errno wray_dup(wray_handle h, wray_handle *copy) { return wray_v1_handle_dup(h, copy); }

void wray_drop(wray_handle h)
{
	if (h != 0)
		wray_v1_handle_drop(&h, 1);
}

wray_errno wray_free(wray_handle h) { return wray_v1_object_free(h); }

uint32_t wray_failure_message(const wray_value *failure, char *buf, size_t cap)
{
	wray_reader r = wray_read(failure);
	uint64_t pairs = 0, key, code = 0;
	if (cap > 0)
		*buf = 0;
	wray_read_map(&r, &pairs);
	while (pairs-- > 0 && wray_read_uint(&r, &key)) {
		const char *s;
		size_t len;
		if (key == 1 && wray_read_uint(&r, &code))
			continue;
		if (key == 2 && wray_read_text(&r, &s, &len)) {
			if (cap > 0)
				snprintf(buf, cap, "%.*s", (int)len, s);
			continue;
		}
		if (!wray_read_skip(&r))
			break;
	}
	return (uint32_t)code;
}

/* --- a call's end ---------------------------------------------------------- */

static void wray_fail_code_(wray_call *call, uint32_t code, const char *name, const wray_value *cause, const char *format, va_list args)
{
	char message[1024];
	wray_cbor c = {0};
	if (call->failed)
		return;
	call->failed = true;
	if (call->canceled)
		code = WRAY_CODE_CANCELED_;
	if (vsnprintf(message, sizeof message, format, args) >= (int)sizeof message) {
		size_t n = sizeof message - 1; /* it was cut, which may be inside of a letter */
		while (n > 0 && (message[n - 1] & 0x80))
			n--;
		message[n] = 0;
	}
	wray_put_map(&c, 2 + (name != NULL) + (cause != NULL));
	wray_put_uint(&c, 1);
	wray_put_uint(&c, code);
	wray_put_uint(&c, 2);
	wray_put_text(&c, message);
	if (name != NULL) {
		wray_put_uint(&c, 8);
		wray_put_array(&c, 1);
		wray_put_text(&c, name);
	}
	if (cause != NULL) {
		wray_put_uint(&c, 11);
		memcpy(wray_room_(&c, cause->len), cause->data, cause->len);
	}
	wray_value v = wray_cbor_value(&c);
	v.encoding = WRAY_ERROR;
	if (wray_v1_task_fail(&v) != WRAY_SUCCESS) { /* no error that the host takes */
		fprintf(stderr, "wray: %s\n", message);
		abort();
	}
	wray_cbor_free(&c);
}

void wray_fail(wray_call *call, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	wray_fail_code_(call, WRAY_CODE_USER_ERROR_, NULL, NULL, format, args);
	va_end(args);
}

void wray_fail_as(wray_call *call, const char *name, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	wray_fail_code_(call, WRAY_CODE_USER_ERROR_, name, NULL, format, args);
	va_end(args);
}

void wray_fail_because(wray_call *call, const wray_value *failure, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	wray_fail_code_(call, WRAY_CODE_DEPENDENCY_FAILED_, NULL, failure, format, args);
	va_end(args);
}

__attribute__((format(printf, 3, 4))) static void wray_refuse_(wray_call *call, uint32_t code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	wray_fail_code_(call, code, NULL, NULL, format, args);
	va_end(args);
}

/* Fails a call because an import did, with what the host says of that. */
static bool wray_broken_(wray_call *call, const char *doing, wray_errno e)
{
	uint8_t why[1024];
	uint32_t len = 0;
	if (e == WRAY_SUCCESS)
		return true;
	wray_value cause = {WRAY_ERROR, 0, why, 0, NULL, 0};
	if (wray_v1_refusal(why, sizeof why, &len) == WRAY_SUCCESS && len > 0) {
		cause.len = len;
		wray_fail_because(call, &cause, "%s", doing);
	} else {
		wray_fail(call, "%s: errno %u", doing, (unsigned)e);
	}
	return false;
}

bool wray_failed(const wray_call *call) { return call->failed; }

static bool wray_give_(wray_call *call, uint32_t i, const wray_value *v)
{
	wray_errno e;
	if (call->failed)
		return false;
	while ((e = wray_v1_task_return(i, v)) == WRAY_EAGAIN)
		wray_park_(0, -1);
	call->returned = true;
	return wray_broken_(call, "a result cannot be given", e);
}

bool wray_return(wray_call *call, uint32_t i, const wray_value *v) { return wray_give_(call, i, v); }

bool wray_return_cbor(wray_call *call, wray_cbor *c)
{
	wray_value v = wray_cbor_value(c);
	bool ok = wray_give_(call, 0, &v);
	wray_cbor_free(c);
	return ok;
}

bool wray_return_int(wray_call *call, int64_t n) { wray_cbor c = {0}; wray_put_int(&c, n); return wray_return_cbor(call, &c); }
bool wray_return_double(wray_call *call, double x) { wray_cbor c = {0}; wray_put_double(&c, x); return wray_return_cbor(call, &c); }
bool wray_return_bool(wray_call *call, bool b) { wray_cbor c = {0}; wray_put_bool(&c, b); return wray_return_cbor(call, &c); }
bool wray_return_text(wray_call *call, const char *s) { wray_cbor c = {0}; wray_put_text(&c, s); return wray_return_cbor(call, &c); }
bool wray_return_ref(wray_call *call, wray_handle h) { wray_cbor c = {0}; wray_put_ref(&c, h); return wray_return_cbor(call, &c); }

bool wray_return_bytes(wray_call *call, const void *p, size_t len)
{
	wray_value v = {WRAY_RAW, 0, p, (uint32_t)len, NULL, 0};
	return wray_give_(call, 0, &v);
}

static uint32_t wray_width_(uint32_t kind)
{
	static const uint8_t widths[] = {0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8};
	return kind < sizeof widths ? widths[kind] : 0;
}

bool wray_return_numbers(wray_call *call, uint32_t kind, const void *p, size_t n)
{
	wray_value v = {WRAY_NUMERIC, kind, p, (uint32_t)n * wray_width_(kind), NULL, 0};
	return wray_give_(call, 0, &v);
}

bool wray_return_object(wray_call *call, uint32_t i, wray_handle h)
{
	wray_value v = {0, 0, (const void *)(uintptr_t)h, 0, NULL, 0};
	return wray_give_(call, i, &v);
}

bool wray_yield(wray_call *call, const wray_value *v)
{
	wray_errno e;
	if (call->failed)
		return false;
	if (call->items++ < call->head->items_done)
		return true; /* the reader may have seen it */
	while ((e = wray_v1_task_yield(v)) == WRAY_EAGAIN)
		wray_park_(0, -1);
	return wray_broken_(call, e == WRAY_ECANCELED ? "nobody reads the stream any more" : "an item cannot be given", e);
}

/* --- a call's input -------------------------------------------------------- */

uint32_t wray_nargs(const wray_call *call) { return call->head->nargs; }
uint32_t wray_nresults(const wray_call *call) { return call->head->nresults; }
uint32_t wray_attempt(const wray_call *call) { return call->head->attempt; }
bool wray_wants_stream(const wray_call *call) { return call->head->flags & WRAY_CALL_STREAM_; }

bool wray_canceled(wray_call *call)
{
	if (wray_events_fd_ != UINT32_MAX)
		wray_read_events_(0);
	return call->canceled;
}

bool wray_arg(wray_call *call, uint32_t i, wray_value *v)
{
	if (call->failed)
		return false;
	if (i >= call->head->nargs) {
		wray_refuse_(call, WRAY_CODE_BAD_ARGUMENT_, "argument %u is wanted, and there are %u", (unsigned)i, (unsigned)call->head->nargs);
		return false;
	}
	const struct wray_call_arg_ *a = &call->args[i];
	if (a->handle == 0) {
		wray_value here = {a->encoding, a->meta, call->input + a->offset, (uint32_t)a->len, NULL, 0};
		*v = here;
		return true;
	}
	struct wray_held_ *held = (struct wray_held_ *)wray_grown_(NULL, sizeof *held);
	wray_errno e = wray_get(a->handle, &held->object);
	if (e != WRAY_SUCCESS) {
		free(held);
		return wray_broken_(call, "an argument cannot be read", e);
	}
	held->next = call->held;
	call->held = held;
	*v = held->object.value;
	return true;
}

static bool wray_mismatch_(wray_call *call, uint32_t i, const char *want)
{
	wray_refuse_(call, WRAY_CODE_BAD_ARGUMENT_, "argument %u: %s is wanted", (unsigned)i, want);
	return false;
}

bool wray_arg_reader(wray_call *call, uint32_t i, wray_reader *r)
{
	wray_value v;
	if (!wray_arg(call, i, &v))
		return false;
	if (v.encoding != WRAY_CBOR)
		return wray_mismatch_(call, i, "a CBOR item");
	*r = wray_read(&v);
	return true;
}

bool wray_arg_int(wray_call *call, uint32_t i, int64_t *n)
{
	wray_reader r;
	return wray_arg_reader(call, i, &r) && (wray_read_int(&r, n) || wray_mismatch_(call, i, "an integer of 64 bits"));
}

bool wray_arg_double(wray_call *call, uint32_t i, double *x)
{
	wray_reader r;
	return wray_arg_reader(call, i, &r) && (wray_read_double(&r, x) || wray_mismatch_(call, i, "a number"));
}

bool wray_arg_bool(wray_call *call, uint32_t i, bool *b)
{
	wray_reader r;
	return wray_arg_reader(call, i, &r) && (wray_read_bool(&r, b) || wray_mismatch_(call, i, "a boolean"));
}

bool wray_arg_text(wray_call *call, uint32_t i, const char **s, size_t *len)
{
	wray_reader r;
	return wray_arg_reader(call, i, &r) && (wray_read_text(&r, s, len) || wray_mismatch_(call, i, "a text"));
}

bool wray_arg_bytes(wray_call *call, uint32_t i, const void **p, size_t *len)
{
	wray_value v;
	if (!wray_arg(call, i, &v))
		return false;
	if (v.encoding != WRAY_RAW)
		return wray_mismatch_(call, i, "bytes are what");
	*p = v.data;
	*len = v.len;
	return true;
}

bool wray_arg_numbers(wray_call *call, uint32_t i, uint32_t kind, const void **p, size_t *n)
{
	wray_value v;
	if (!wray_arg(call, i, &v))
		return false;
	if (v.encoding != WRAY_NUMERIC || v.meta != kind || wray_width_(kind) == 0)
		return wray_mismatch_(call, i, "a slice of other numbers");
	*p = v.data;
	*n = v.len / wray_width_(kind);
	return true;
}

bool wray_arg_ref(wray_call *call, uint32_t i, wray_handle *h)
{
	wray_reader r;
	return wray_arg_reader(call, i, &r) && (wray_read_ref(&r, h) || wray_mismatch_(call, i, "a reference"));
}

/* --- running others -------------------------------------------------------- */

wray_argument wray_pass(const wray_value *v) { wray_argument a = {0, 0, *v}; return a; }
wray_argument wray_pass_cbor(const wray_cbor *c) { wray_value v = wray_cbor_value(c); return wray_pass(&v); }
wray_argument wray_pass_bytes(const void *p, size_t len) { wray_value v = {WRAY_RAW, 0, p, (uint32_t)len, NULL, 0}; return wray_pass(&v); }
wray_argument wray_pass_object(wray_handle h) { wray_argument a = {1, h, {0, 0, NULL, 0, NULL, 0}}; return a; }

wray_errno wray_lookup(const char *module, const char *name, uint32_t *fn)
{
	return wray_v1_function(module, (uint32_t)strlen(module), name, (uint32_t)strlen(name), fn);
}

wray_errno wray_submit(wray_spec *specs, uint32_t n)
{
	while (n > 0) {
		uint32_t done = 0;
		wray_errno e = wray_v1_submit(specs, n, &done);
		specs += done;
		n -= done;
		if (e == WRAY_EAGAIN)
			wray_park_(0, -1);
		else if (e != WRAY_SUCCESS)
			return e;
	}
	return WRAY_SUCCESS;
}

static wray_errno wray_submit_(uint32_t fn, uint32_t flags, wray_handle actor, const wray_argument *args, uint32_t n, wray_handle *result)
{
	wray_spec s = {0};
	s.fn = fn;
	s.flags = flags;
	s.actor = actor;
	s.args = args;
	s.nargs = n;
	s.results = result;
	s.nresults = 1;
	return wray_submit(&s, 1);
}

wray_errno wray_remote(uint32_t fn, const wray_argument *args, uint32_t n, wray_handle *result)
{
	return wray_submit_(fn, 0, 0, args, n, result);
}

wray_errno wray_new_actor(uint32_t class_, const wray_argument *args, uint32_t n, wray_handle *actor)
{
	return wray_submit_(class_, WRAY_IS_ACTOR, 0, args, n, actor);
}

wray_errno wray_call_method(uint32_t method, wray_handle actor, const wray_argument *args, uint32_t n, wray_handle *result)
{
	return wray_submit_(method, 0, actor, args, n, result);
}

wray_errno wray_cancel(wray_handle result) { return wray_v1_cancel(result); }
wray_errno wray_find_actor(const char *name, wray_handle *actor) { return wray_v1_actor(name, (uint32_t)strlen(name), actor); }
wray_errno wray_kill(wray_handle actor, bool restart) { return wray_v1_kill(actor, restart ? 1 : 0); }
wray_errno wray_checkpoint(void) { return wray_v1_kill(0, 2); }

/* --- the entry ------------------------------------------------------------- */

static void wray_invoke_(wray_call *call)
{
	const struct wray_declared_ *d;
	bool actor = call->head->flags & WRAY_CALL_ACTOR_;
	if (call->head->index >= wray_nfunctions_) {
		wray_refuse_(call, WRAY_CODE_UNKNOWN_FUNCTION_, "the module declares %u functions, number %u is wanted",
			(unsigned)wray_nfunctions_, (unsigned)call->head->index);
		return;
	}
	d = &wray_functions_[call->head->index];
	if (d->kind != WRAY_KIND_TASK_ && !actor) {
		wray_refuse_(call, WRAY_CODE_BAD_ARGUMENT_, "%s is of an actor and was submitted as a task", d->name);
		return;
	}
	if (d->kind == WRAY_KIND_TASK_ && actor) {
		wray_refuse_(call, WRAY_CODE_BAD_ARGUMENT_, "%s is a task and was submitted as of an actor", d->name);
		return;
	}
	if (d->kind == WRAY_KIND_ACTOR_)
		wray_class_ = d->class_;
	if (d->kind == WRAY_KIND_METHOD_ && (wray_class_ == NULL || strcmp(wray_class_, d->class_) != 0)) {
		wray_refuse_(call, WRAY_CODE_BAD_ARGUMENT_, "the actor is of the class %s, and not of %s", wray_class_ ? wray_class_ : "?", d->class_);
		return;
	}
	d->run(call);
	bool constructed = d->kind == WRAY_KIND_ACTOR_; /* it has one result, or none when it starts again */
	if (!call->failed && !call->returned && !wray_wants_stream(call) && (constructed || call->head->nresults == 1)) {
		static const uint8_t empty_map = 0xa0;
		wray_value none = {WRAY_CBOR, 0, &empty_map, 1, NULL, 0};
		wray_give_(call, 0, &none);
	}
}

static uint32_t wray_run_task_(void)
{
	static uint64_t small[1024]; /* most inputs; aligned as the structures in it */
	void *input = small, *large = NULL;
	uint32_t len = 0;
	wray_errno e = wray_v1_task_input(input, sizeof small, &len);
	for (;;) {
		while (e == WRAY_EOVERFLOW) {
			input = large = wray_grown_(large, len);
			e = wray_v1_task_input(input, len, &len);
		}
		if (e != WRAY_SUCCESS) {
			free(large);
			return e;
		}
		wray_call call;
		memset(&call, 0, sizeof call);
		call.head = (const struct wray_head_of_call_ *)input;
		call.args = (const struct wray_call_arg_ *)(call.head + 1);
		call.input = (const uint8_t *)input;
		wray_current_ = &call;
		*(volatile uint32_t *)&len = 0; /* the host is told: what comes now is this task's */
		wray_invoke_(&call);
		fflush(NULL);
		wray_current_ = NULL;
		while (call.held != NULL) {
			struct wray_held_ *held = call.held;
			call.held = held->next;
			wray_release(&held->object);
			free(held);
		}
		for (uint32_t i = 0; i < call.head->nargs; i++)
			wray_drop(call.args[i].handle);
		bool actor = (call.head->flags & WRAY_CALL_ACTOR_) != 0;
		free(large);
		large = NULL;
		input = small;
		if (actor)
			return 0;
		e = wray_v1_task_next(NULL, input, sizeof small, &len);
		if (e == WRAY_ENOENT)
			return 0; /* there is no other task now */
	}
}

__attribute__((export_name("wray_call"))) uint32_t wray_entry_(uint32_t op, uint32_t arg)
{
	int code;
	(void)arg;
	switch (op) {
	case WRAY_OP_WARMUP_:
		if (wray_v1_version() != 1) {
			fputs("wray: this program speaks version 1 of wray_v1, and the host does not\n", stderr);
			exit(1);
		}
		wray_open_events_(); /* now, so that it is in every sandbox and survives its sleep */
		return 0;
	case WRAY_OP_RESTORE_:
		if (wray_restored)
			wray_restored();
		return 0;
	case WRAY_OP_MAIN_:
		if (!wray_main) {
			fputs("wray: this module has tasks and no driver: give it to one with --with\n", stderr);
			return 2;
		}
		code = wray_main();
		fflush(NULL);
		return (uint32_t)code;
	case WRAY_OP_TASK_:
		return wray_run_task_();
	case WRAY_OP_RECLAIM_:
		return 0; /* what C holds it holds on purpose */
	}
	return WRAY_EINVAL;
}

#endif /* __wasm32__ */

#endif /* WRAY_IMPLEMENTATION */
#endif /* WRAY_H */
