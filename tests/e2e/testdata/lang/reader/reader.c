/* Reads random bytes with wray.h's reader: reader SEED ROUNDS. */
#define WRAY_IMPLEMENTATION
#include "wray.h"

static uint64_t state;

static uint32_t next(void) /* splitmix64 */
{
	uint64_t z = state += 0x9E3779B97F4A7C15u;
	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
	z = (z ^ z >> 27) * 0x94D049BB133111EBu;
	return (uint32_t)(z >> 32);
}

/* Writes a random item. */
static void item(wray_cbor *c, int depth)
{
	uint32_t kind = next() % (depth > 0 ? 9 : 7), n = next() % 4;
	switch (kind) {
	case 0: wray_put_int(c, -(int64_t)(next() >> next() % 32)); break;
	case 1: wray_put_uint(c, (uint64_t)next() << 32 >> next() % 64); break;
	case 2: wray_put_double(c, (double)next() / 7); break;
	case 3: wray_put_text_n(c, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", next() % 50); break;
	case 4: wray_put_bytes(c, "\0\1\2", n % 4); break;
	case 5: wray_put_ref(c, n + 1); break;
	case 6: n % 2 ? wray_put_null(c) : wray_put_bool(c, n > 1); break;
	case 7:
		for (wray_put_array(c, n); n > 0; n--)
			item(c, depth - 1);
		break;
	case 8:
		for (wray_put_map(c, n), n *= 2; n > 0; n--)
			item(c, depth - 1);
		break;
	}
}

/* Copies what reads; false where something does not. */
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
			return false; /* below what 64 bits hold */
		return true;
	case WRAY_IS_DOUBLE: return wray_read_double(r, &x) && (wray_put_double(c, x), true);
	case WRAY_IS_BOOL: return wray_read_bool(r, &b) && (wray_put_bool(c, b), true);
	case WRAY_IS_NULL: return wray_read_null(r) && (wray_put_null(c), true);
	case WRAY_IS_TEXT: return wray_read_text(r, &s, &len) && (wray_put_text_n(c, s, len), true);
	case WRAY_IS_BYTES: return wray_read_bytes(r, &p, &len) && (wray_put_bytes(c, p, len), true);
	case WRAY_IS_REF: return wray_read_ref(r, &h) && (wray_put_ref(c, h), true);
	case WRAY_IS_ARRAY:
	case WRAY_IS_MAP:
		if (wray_read_array(r, &u)) {
			wray_put_array(c, u);
		} else if (wray_read_map(r, &u)) {
			wray_put_map(c, u);
			u *= 2;
		} else {
			return false;
		}
		while (u-- > 0)
			if (!copy(r, c))
				return false;
		return true;
	}
	return false;
}

static void fail(const char *what, uint64_t round)
{
	fprintf(stderr, "round %llu: %s\n", (unsigned long long)round, what);
	exit(1);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	state = strtoull(argv[1], NULL, 10);
	uint64_t rounds = strtoull(argv[2], NULL, 10);
	for (uint64_t round = 0; round < rounds; round++) {
		wray_cbor c = {0}, twice = {0}, thrice = {0};
		bool good = next() % 2, random = next() % 4 == 0;
		if (random)
			for (uint32_t n = next() % 40; n > 0; n--) {
				uint8_t byte = (uint8_t)next();
				memcpy(wray_room_(&c, 1), &byte, 1);
			}
		else
			item(&c, 4);
		if (!good && !random && c.len > 0) {
			if (next() % 2)
				c.data[next() % c.len] = (uint8_t)next();
			else
				c.len = next() % c.len;
		}
		/* Memory of its exact size, so that a step beyond is seen. */
		wray_value v = wray_cbor_value(&c);
		uint8_t *exact = malloc(v.len + !v.len);
		if (v.len > 0)
			memcpy(exact, v.data, v.len);
		v.data = exact;
		wray_reader r = wray_read(&v), skip = r;
		bool read = copy(&r, &twice), skipped = wray_read_skip(&skip);
		if (good && !random && (!read || r.at != r.end))
			fail("what was written does not read", round);
		if (read && (!skipped || skip.at != r.at))
			fail("skipping and reading differ", round);
		if (read) {
			wray_value w = wray_cbor_value(&twice);
			wray_reader again = wray_read(&w);
			if (!copy(&again, &thrice) || again.at != again.end || thrice.len != twice.len ||
				memcmp(twice.data, thrice.data, twice.len) != 0 || twice.nrefs != thrice.nrefs)
				fail("it does not read as the same again", round);
		}
		free(exact);
		wray_cbor_free(&c);
		wray_cbor_free(&twice);
		wray_cbor_free(&thrice);
	}
	return 0;
}
