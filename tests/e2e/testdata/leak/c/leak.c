/* A task that forgets to give a reference back: it is in a global, and its
 * sandbox lives on. */
#define WRAY_IMPLEMENTATION
#include "wray.h"

static wray_handle kept;

WRAY_TASK(forget)
{
	wray_handle h;
	if (wray_arg_ref(call, 0, &h) && wray_dup(h, &kept) != 0)
		wray_fail(call, "dup");
}
