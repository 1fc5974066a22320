/* What TestActorsInC asks of wray.h. With wray_main it is a program, too. */
#define WRAY_IMPLEMENTATION
#include "wray.h"

static int restored;
static uint64_t seed;

void wray_restored(void)
{
	restored++;
	if (__wasi_random_get((uint8_t *)&seed, sizeof seed) != 0)
		abort();
}

/* Copies items of any shape, with their references. */
static bool copy(wray_reader *r, wray_cbor *c)
{
	int64_t n;
	uint64_t u;
	double x;
	bool b;
	const char *s;
	const void *p;
	size_t len;
	wray_handle h;
	switch (wray_read_type(r)) {
	case WRAY_IS_INT:
		if (wray_read_int(r, &n))
			wray_put_int(c, n);
		else if (wray_read_uint(r, &u))
			wray_put_uint(c, u);
		else
			return false;
		return true;
	case WRAY_IS_DOUBLE:
		return wray_read_double(r, &x) && (wray_put_double(c, x), true);
	case WRAY_IS_BOOL:
		return wray_read_bool(r, &b) && (wray_put_bool(c, b), true);
	case WRAY_IS_NULL:
		return wray_read_null(r) && (wray_put_null(c), true);
	case WRAY_IS_TEXT:
		return wray_read_text(r, &s, &len) && (wray_put_text_n(c, s, len), true);
	case WRAY_IS_BYTES:
		return wray_read_bytes(r, &p, &len) && (wray_put_bytes(c, p, len), true);
	case WRAY_IS_REF:
		return wray_read_ref(r, &h) && (wray_put_ref(c, h), true);
	case WRAY_IS_ARRAY:
		if (!wray_read_array(r, &u))
			return false;
		wray_put_array(c, u);
		while (u-- > 0)
			if (!copy(r, c))
				return false;
		return true;
	case WRAY_IS_MAP:
		if (!wray_read_map(r, &u))
			return false;
		wray_put_map(c, u);
		while (u-- > 0)
			if (!copy(r, c) || !copy(r, c))
				return false;
		return true;
	}
	return false;
}

WRAY_TASK(echo)
{
	wray_value v;
	if (!wray_arg(call, 0, &v))
		return;
	if (v.encoding != WRAY_CBOR) {
		wray_return(call, 0, &v);
		return;
	}
	wray_reader r = wray_read(&v), skipped = r;
	wray_cbor c = {0};
	if (!copy(&r, &c) || !wray_read_skip(&skipped) || skipped.at != r.at || wray_read_type(&r) != 0)
		wray_fail(call, "it does not read");
	wray_return_cbor(call, &c);
}

WRAY_TASK(both) /* two results */
{
	int64_t n;
	if (!wray_arg_int(call, 0, &n))
		return;
	wray_cbor c = {0};
	wray_put_int(&c, n);
	wray_value v = wray_cbor_value(&c), bytes = {WRAY_RAW, 0, "two", 3, NULL, 0};
	wray_return(call, 0, &v);
	wray_return(call, 1, &bytes);
	wray_cbor_free(&c);
}

WRAY_TASK(mean)
{
	const void *p;
	size_t n;
	double sum = 0;
	if (!wray_arg_numbers(call, 0, WRAY_F64, &p, &n))
		return;
	for (size_t i = 0; i < n; i++)
		sum += ((const double *)p)[i];
	wray_return_double(call, sum / (double)n);
}

WRAY_TASK(nothing) { printf("nothing of %u\n", (unsigned)wray_nargs(call)); }
WRAY_TASK(crash) { (void)call; abort(); }
WRAY_TASK(restores) { wray_return_int(call, restored); }

/* sum(depth): calls itself twice until depth is 0, so that all processors are
 * held by tasks that wait, unless those give them back. */
WRAY_TASK(sum)
{
	int64_t depth, total = 0;
	wray_handle parts[2];
	uint32_t fn;
	if (!wray_arg_int(call, 0, &depth))
		return;
	if (depth == 0) {
		wray_return_int(call, 1);
		return;
	}
	wray_cbor less = {0};
	wray_put_int(&less, depth - 1);
	wray_argument arg = wray_pass_cbor(&less);
	if (wray_lookup("", "sum", &fn) || wray_remote(fn, &arg, 1, &parts[0]) || wray_remote(fn, &arg, 1, &parts[1])) {
		wray_fail(call, "submit");
		return;
	}
	wray_cbor_free(&less);
	uint8_t ready[2];
	if (wray_wait(parts, 2, 2, -1, ready) || !ready[0] || !ready[1])
		wray_fail(call, "wait");
	for (int i = 0; i < 2; i++) {
		wray_object o;
		int64_t n;
		if (wray_get(parts[i], &o)) {
			wray_fail(call, "get");
			return;
		}
		wray_reader r = wray_read(&o.value);
		if (o.value.encoding == WRAY_ERROR)
			wray_fail_because(call, &o.value, "part %d", i);
		else if (wray_read_int(&r, &n))
			total += n;
		wray_release(&o);
		wray_drop(parts[i]);
	}
	wray_return_int(call, total);
}

/* caught: what a task that fails says. */
WRAY_TASK(caught)
{
	uint32_t fn, code;
	wray_handle h;
	wray_object o;
	char message[100], text[120];
	if (wray_lookup("", "crash", &fn) || wray_remote(fn, NULL, 0, &h) || wray_get(h, &o) || o.value.encoding != WRAY_ERROR) {
		wray_fail(call, "no failure");
		return;
	}
	code = wray_failure_message(&o.value, message, sizeof message);
	snprintf(text, sizeof text, "%u", (unsigned)code);
	if (wray_nargs(call) == 0)
		wray_return_text(call, text);
	else
		wray_fail_because(call, &o.value, "as it was asked to");
	wray_release(&o);
	wray_drop(h);
}

WRAY_TASK(counting) /* stream */
{
	int64_t n;
	if (!wray_arg_int(call, 0, &n))
		return;
	for (int64_t i = 0; i < n; i++) {
		wray_cbor c = {0};
		wray_put_int(&c, i);
		wray_value v = wray_cbor_value(&c);
		bool ok = wray_yield(call, &v);
		wray_cbor_free(&c);
		if (!ok)
			return;
	}
	if (n == 7)
		wray_fail_as(call, "lang.ErrSeven", "seven");
}

WRAY_TASK(patient) /* runs until it is canceled, and says so in an actor that it was given */
{
	wray_handle h, r;
	uint32_t fn;
	wray_cbor one = {0};
	if (!wray_arg_ref(call, 0, &h))
		return;
	wray_put_int(&one, 1);
	wray_argument arg = wray_pass_cbor(&one);
	for (int i = 0; i < 2; i++) { /* that it has begun, that it was canceled */
		if (wray_lookup("", "counter.add", &fn) || wray_call_method(fn, h, &arg, 1, &r)) {
			wray_fail(call, "call");
			return;
		}
		wray_drop(r);
		while (i == 0 && !wray_canceled(call))
			;
	}
	wray_fail(call, "as it was asked to");
}

static int64_t count;
static wray_handle kept;
static char *memory; /* of 1 MiB, on the heap */

WRAY_ACTOR(counter)
{
	wray_arg_int(call, 0, &count);
	if (count < 0)
		wray_fail_as(call, "lang.ErrNegative", "%lld is below 0", (long long)count);
	memory = malloc(1 << 20);
	memset(memory, 'w', 1 << 20);
}

WRAY_METHOD(counter, add)
{
	int64_t by;
	if (!wray_arg_int(call, 0, &by))
		return;
	count += by;
	memory[count & 0xfffff] = (char)count;
	wray_return_int(call, count);
}

WRAY_METHOD(counter, keep) /* a reference, beyond the call */
{
	wray_handle h;
	if (!wray_arg_ref(call, 0, &h))
		return;
	wray_drop(kept);
	if (wray_dup(h, &kept))
		wray_fail(call, "dup");
}

WRAY_METHOD(counter, kept) { wray_return_object(call, 0, kept); }
WRAY_METHOD(counter, kept_ref) { wray_return_ref(call, kept); }

WRAY_METHOD(counter, save)
{
	if (wray_checkpoint())
		wray_fail(call, "checkpoint");
}

WRAY_METHOD(counter, crash)
{
	count = 1 << 30;
	(void)call;
	abort();
}

WRAY_METHOD(counter, stream)
{
	for (int i = 0; i < 3; i++) {
		wray_value v = {WRAY_RAW, 0, &"abc"[i], 1, NULL, 0};
		wray_yield(call, &v);
	}
}

WRAY_ACTOR(other) { (void)call; }
WRAY_METHOD(other, get) { wray_return_int(call, 7); }

/* A driver: makes an actor and calls it, puts a large value and reads it. */
int wray_main(void)
{
	uint32_t class_, add;
	wray_handle actor, result = 0, big;
	wray_object o;
	if (wray_lookup("", "counter", &class_) || wray_lookup("", "counter.add", &add))
		return 10;
	wray_cbor one = {0};
	wray_put_int(&one, 1);
	wray_argument arg = wray_pass_cbor(&one);
	if (wray_new_actor(class_, &arg, 1, &actor))
		return 11;
	for (int i = 0; i < 10; i++) {
		wray_drop(result);
		if (wray_call_method(add, actor, &arg, 1, &result))
			return 12;
	}
	if (wray_get(result, &o))
		return 13;
	int64_t n = 0;
	wray_reader r = wray_read(&o.value);
	if (!wray_read_int(&r, &n))
		return 14;
	printf("counted to %lld\n", (long long)n);
	wray_release(&o);

	static char text[300000];
	memset(text, 'x', sizeof text);
	wray_value v = {WRAY_RAW, 0, text, sizeof text, NULL, 0};
	if (wray_put(&v, &big) || wray_get(big, &o) || o.value.len != sizeof text || memcmp(o.value.data, text, sizeof text) != 0)
		return 15;
	wray_release(&o);
	if (wray_free(big) || wray_get(big, &o) || o.value.encoding != WRAY_ERROR)
		return fprintf(stderr, "%u %u %u\n", wray_free(big), o.value.encoding, o.value.len), 16;
	wray_release(&o);
	wray_drop(big);
	uint8_t ready = 1;
	/* Nobody makes the next: a constructor that is not called ends never. */
	if (wray_wait(&actor, 1, 1, 1000000, &ready) || !ready)
		return 17;
	return 3;
}
