package abi

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

// TestHeader holds that the C header has the numbers of this package. Sizes and
// offsets are asserted in the header itself.
func TestHeader(t *testing.T) {
	src, err := os.ReadFile("../guest/c/wray.h")
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]uint64{}
	for _, m := range regexp.MustCompile(`\b(WRAY_\w+) = (0x[0-9a-f]+|[0-9]+)\b`).FindAllStringSubmatch(string(src), -1) {
		n, err := strconv.ParseUint(m[2], 0, 64)
		if have, twice := has[m[1]]; err != nil || twice && have != n {
			t.Errorf("%s: %v", m[0], err)
		}
		has[m[1]] = n
	}
	for name, want := range map[string]uint64{
		"RAW": uint64(EncodingRaw), "CBOR": uint64(EncodingCBOR), "NUMERIC": uint64(EncodingNumeric), "ARROW": uint64(EncodingArrow),
		"ERROR": uint64(EncodingError),
		"I8":    uint64(ElemI8), "I16": uint64(ElemI16), "I32": uint64(ElemI32), "I64": uint64(ElemI64), "U8": uint64(ElemU8),
		"U16": uint64(ElemU16), "U32": uint64(ElemU32), "U64": uint64(ElemU64), "F32": uint64(ElemF32), "F64": uint64(ElemF64),
		"SUCCESS": uint64(Success), "E2BIG": uint64(E2BIG), "EAGAIN": uint64(EAGAIN), "EBADF": uint64(EBADF), "ECANCELED": uint64(ECANCELED),
		"EEXIST": uint64(EEXIST), "EFAULT": uint64(EFAULT), "EINVAL": uint64(EINVAL), "EIO": uint64(EIO), "EMSGSIZE": uint64(EMSGSIZE),
		"ENOENT": uint64(ENOENT), "ENOMEM": uint64(ENOMEM), "ENOSPC": uint64(ENOSPC), "ENOSYS": uint64(ENOSYS), "ENOTSUP": uint64(ENOTSUP),
		"EOVERFLOW": uint64(EOVERFLOW), "EPERM": uint64(EPERM),
		"FRESH": SpecFresh, "STREAM": SpecStream, "RETRY_ERRORS": SpecRetryErrors, "HAS_CPU": SpecHasCPU, "HAS_RETRIES": SpecHasRetries,
		"IS_ACTOR": SpecActor, "NAMED": SpecNamed, "GET_IF_EXISTS": SpecGetIfExists, "DETACHED": SpecDetached, "DURABLE": SpecDurable, "CHECKPOINT": SpecCheckpoint,
		"IS_GROUP": SpecGroup, "IN_GROUP": SpecInGroup, "CAPTURE": SpecCapture,
		"OP_WARMUP_": uint64(OpWarmup), "OP_RESTORE_": uint64(OpRestore), "OP_MAIN_": uint64(OpMain), "OP_TASK_": uint64(OpTask),
		"OP_RECLAIM_": uint64(OpReclaim), "CALL_STREAM_": CallStream, "CALL_ACTOR_": CallActor, "EVENT_READY_": EventReady,
		"EVENT_CANCEL_": EventCancel, "WATCH_": FlagWatch, "MAPPABLE_": InfoMappable, "NO_OFFSET_": NoOffset,
	} {
		if n, ok := has["WRAY_"+name]; !ok || n != want {
			t.Errorf("WRAY_%s is %d, there: %v, want %d", name, n, ok, want)
		}
	}
}
