/*
 * tally is an actor, written in C, that counts the words which it is given, and
 * a task beside it. Its state is what it has in static variables and on the
 * heap: nothing here saves it, and nothing has to.
 */
#define WRAY_IMPLEMENTATION
#include "wray.h"

#include <ctype.h>

struct word {
	struct word *next;
	int64_t count;
	size_t len;
	char text[];
};

static struct word *words[1 << 10];
static int64_t total;
static size_t longest; /* letters that count */

/* Finds a word, or makes a place for it. */
static struct word *find(const char *s, size_t len)
{
	uint32_t hash = 2166136261u; /* FNV-1a */
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)s[i]) * 16777619u;
	struct word **at = &words[hash % (sizeof words / sizeof words[0])];
	for (; *at != NULL; at = &(*at)->next)
		if ((*at)->len == len && memcmp((*at)->text, s, len) == 0)
			return *at;
	*at = calloc(1, sizeof **at + len);
	if (*at == NULL)
		abort(); /* the actor's memory is full: it ends, and its callers are told */
	(*at)->len = len;
	memcpy((*at)->text, s, len);
	return *at;
}

/* New(longest): words with more letters are refused. */
WRAY_ACTOR(tally)
{
	int64_t n;
	if (!wray_arg_int(call, 0, &n))
		return;
	if (n < 1) {
		wray_fail(call, "a tally of words of %lld letters", (long long)n);
		return;
	}
	longest = (size_t)n;
}

/* Add(text []byte) int: counts the words of a text, all or none, and returns how
 * many have been counted in all. */
WRAY_METHOD(tally, add)
{
	const void *p;
	size_t len;
	if (!wray_arg_bytes(call, 0, &p, &len))
		return;
	const char *text = p;
	for (int round = 0; round < 2; round++) {
		for (size_t i = 0, start; i < len;) {
			while (i < len && !isalpha((unsigned char)text[i]))
				i++;
			for (start = i; i < len && isalpha((unsigned char)text[i]);)
				i++;
			if (round == 0 && i - start > longest) {
				wray_fail_as(call, "tally.ErrTooLong", "%.*s has %zu letters, the most are %zu",
					(int)(i - start), text + start, i - start, longest);
				return;
			}
			if (round == 1 && i > start) {
				find(text + start, i - start)->count++;
				total++;
			}
		}
	}
	wray_return_int(call, total);
}

/* Count(word string) int */
WRAY_METHOD(tally, count)
{
	const char *s;
	size_t len;
	if (wray_arg_text(call, 0, &s, &len))
		wray_return_int(call, find(s, len)->count);
}

/* All() map[string]int: the words with their numbers. */
WRAY_METHOD(tally, all)
{
	uint64_t n = 0;
	wray_cbor c = {0};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		for (struct word *w = words[i]; w != NULL; w = w->next)
			n += w->count > 0;
	wray_put_map(&c, n);
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		for (struct word *w = words[i]; w != NULL; w = w->next) {
			if (w->count > 0) {
				wray_put_text_n(&c, w->text, w->len);
				wray_put_int(&c, w->count);
			}
		}
	}
	wray_return_cbor(call, &c);
}

/* crc32([]byte) uint32: a task, which has no state. The sum is that of zip. */
WRAY_TASK(crc32)
{
	const void *p;
	size_t len;
	uint32_t crc = 0xFFFFFFFFu;
	if (!wray_arg_bytes(call, 0, &p, &len))
		return;
	for (size_t i = 0; i < len; i++) {
		crc ^= ((const uint8_t *)p)[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
	}
	wray_return_int(call, ~crc);
}
