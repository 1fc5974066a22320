/*
 * crc prints the CRC-32 of files, or of standard input: the checksum of zip,
 * gzip and PNG (ISO-HDLC: polynomial 0x04C11DB7 reflected, start and final
 * exclusive or of all ones).
 *
 *	crc [FILE...]
 *
 * CRC_FORMAT=dec in the environment has it print decimal numbers. It exits with
 * 1 where a file cannot be read, and with 2 where CRC_FORMAT makes no sense.
 *
 * This is plain C for any system. It has never heard of wray.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t table[256];

/* The remainders of all bytes, so that the sum takes a step a byte. */
static void make_table(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t r = i;
		for (int bit = 0; bit < 8; bit++)
			r = r & 1 ? r >> 1 ^ 0xEDB88320u : r >> 1;
		table[i] = r;
	}
}

/* Returns 0, or -1 with errno set. */
static int sum(FILE *f, uint32_t *result)
{
	static unsigned char buf[1 << 16];
	uint32_t crc = 0xFFFFFFFFu;
	size_t n;

	while ((n = fread(buf, 1, sizeof buf, f)) > 0)
		for (size_t i = 0; i < n; i++)
			crc = crc >> 8 ^ table[(crc ^ buf[i]) & 0xFF];
	*result = ~crc;
	return ferror(f) ? -1 : 0;
}

int main(int argc, char **argv)
{
	const char *format = getenv("CRC_FORMAT");
	int decimal = format != NULL && strcmp(format, "dec") == 0;
	int code = 0;

	if (format != NULL && !decimal && strcmp(format, "hex") != 0) {
		fprintf(stderr, "crc: CRC_FORMAT is %s, and must be hex or dec\n", format);
		return 2;
	}
	make_table();
	for (int i = argc > 1 ? 1 : 0; i < (argc > 1 ? argc : 1); i++) {
		const char *name = i == 0 ? "-" : argv[i];
		FILE *f = i == 0 ? stdin : fopen(name, "rb");
		uint32_t crc;

		if (f == NULL || sum(f, &crc) != 0) {
			fprintf(stderr, "crc: %s: %s\n", name, strerror(errno));
			code = 1;
		} else if (decimal) {
			printf("%" PRIu32 "  %s\n", crc, name);
		} else {
			printf("%08" PRIx32 "  %s\n", crc, name);
		}
		if (f != NULL && f != stdin)
			fclose(f);
	}
	return code;
}
