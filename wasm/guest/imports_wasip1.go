package guest

import (
	"structs"
	"unsafe"

	"github.com/wray-project/wray/wasm/abi"
)

// The imports, as docs/ABI.md gives them. Pointers that stand inside the
// structures below are plain numbers, which the collector and the compiler's
// escape analysis do not see: whoever fills them keeps what they point to in
// the heap, and alive until the import returns (see staging).

//go:wasmimport wray_v1 version
func importVersion() uint32

//go:wasmimport wray_v1 declare
//go:noescape
func importDeclare(name unsafe.Pointer, nameLen, index, flags uint32) uint32

//go:wasmimport wray_v1 function
//go:noescape
func importFunction(module unsafe.Pointer, moduleLen uint32, name unsafe.Pointer, nameLen uint32, out *uint32) uint32

//go:wasmimport wray_v1 submit
//go:noescape
func importSubmit(specs *rawSpec, n uint32, done *uint32) uint32

//go:wasmimport wray_v1 cancel
func importCancel(handle uint32) uint32

//go:wasmimport wray_v1 call_select
func importCallSelect(call uint64) uint32

//go:wasmimport wray_v1 call_end
func importCallEnd() uint32

//go:wasmimport wray_v1 task_input
//go:noescape
func importTaskInput(buf unsafe.Pointer, size uint32, length *uint32) uint32

//go:wasmimport wray_v1 task_next
//go:noescape
func importTaskNext(v *rawValue, buf unsafe.Pointer, size uint32, length *uint32) uint32

//go:wasmimport wray_v1 task_return
//go:noescape
func importTaskReturn(index uint32, v *rawValue) uint32

//go:wasmimport wray_v1 task_fail
//go:noescape
func importTaskFail(v *rawValue) uint32

//go:wasmimport wray_v1 task_yield
//go:noescape
func importTaskYield(v *rawValue) uint32

//go:wasmimport wray_v1 object_put
//go:noescape
func importObjectPut(v *rawValue, handle *uint32) uint32

//go:wasmimport wray_v1 object_get
//go:noescape
func importObjectGet(handle uint32, buf unsafe.Pointer, size uint32, info *rawInfo, flags uint32) uint32

//go:wasmimport wray_v1 object_take
//go:noescape
func importObjectTake(handles *uint32, n, most uint32, buf unsafe.Pointer, size uint32, taken *uint32) uint32

//go:wasmimport wray_v1 object_refs
//go:noescape
func importObjectRefs(handle uint32, handles *uint32, size uint32) uint32

//go:wasmimport wray_v1 object_watch
//go:noescape
func importObjectWatch(handles *uint32, n uint32) uint32

//go:wasmimport wray_v1 object_wait
//go:noescape
func importObjectWait(handles *uint32, n, least uint32, timeout int64, ready unsafe.Pointer) uint32

//go:wasmimport wray_v1 object_map
func importObjectMap(handle uint32, ptr, length uint32, offset int64) uint32

//go:wasmimport wray_v1 object_unmap
func importObjectUnmap(ptr, length uint32) uint32

//go:wasmimport wray_v1 object_read
//go:noescape
func importObjectRead(handle uint32, offset int64, buf unsafe.Pointer, size uint32, read *uint32) uint32

//go:wasmimport wray_v1 object_free
func importObjectFree(handle uint32) uint32

//go:wasmimport wray_v1 object_stat
//go:noescape
func importObjectStat(handle uint32, buf unsafe.Pointer, size uint32, length *uint32) uint32

//go:wasmimport wray_v1 buffer_open
//go:noescape
func importBufferOpen(length uint64, out *uint32) uint32

//go:wasmimport wray_v1 buffer_seal
//go:noescape
func importBufferSeal(handle, encoding, meta uint32, length uint64, out *uint32) uint32

//go:wasmimport wray_v1 handle_dup
//go:noescape
func importHandleDup(handle uint32, out *uint32) uint32

//go:wasmimport wray_v1 handle_drop
//go:noescape
func importHandleDrop(handles *uint32, n uint32) uint32

//go:wasmimport wray_v1 stream_next
//go:noescape
func importStreamNext(handle uint32, out *uint32, flags uint32) uint32

//go:wasmimport wray_v1 event_open
//go:noescape
func importEventOpen(fd *uint32) uint32

//go:wasmimport wray_v1 actor
//go:noescape
func importActor(name unsafe.Pointer, nameLen uint32, out *uint32) uint32

//go:wasmimport wray_v1 kill
func importKill(handle, flags uint32) uint32

//go:wasmimport wray_v1 http_fetch
//go:noescape
func importHTTPFetch(r *rawHTTPRequest, out *uint32) uint32

//go:wasmimport wray_v1 refusal
//go:noescape
func importRefusal(buf unsafe.Pointer, size uint32, length *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 fd_read
//go:noescape
func wasiFdRead(fd uint32, iovs *iovec, n uint32, read *uint32) uint32

//go:wasmimport wasi_snapshot_preview1 random_get
//go:noescape
func wasiRandomGet(buf unsafe.Pointer, n uint32) uint32

type iovec struct {
	_        structs.HostLayout
	ptr, len uint32
}

// The structures in linear memory. The compiler proves below that their
// offsets are those of package abi.

type rawValue struct {
	_                                          structs.HostLayout
	encoding, meta, ptr, len, refsPtr, refsLen uint32
}

type rawArg struct {
	_            structs.HostLayout
	kind, handle uint32
	value        rawValue
}

type rawSpec struct {
	_                     structs.HostLayout
	fn, flags             uint32
	argsPtr, nargs        uint32
	resultsPtr, nresults  uint32
	namePtr, nameLen      uint32
	cpu                   uint32
	retries               int32
	memory                uint64
	timeout               uint64
	retryOnPtr, retryOnLn uint32
	window                uint32
	actor                 uint32
	callTries             int32
	maxPending            uint32
	idle                  uint64
	concurrency           uint32
	checkpointCalls       uint32
	checkpointEvery       uint64
	customPtr, customLen  uint32
	keyPtr, keyLen        uint32
	placePtr, placeLen    uint32
}

type rawInfo struct {
	_              structs.HostLayout
	encoding, meta uint32
	len            uint64
	nrefs, flags   uint32
	reserved       uint64
}

type rawCall struct {
	_                             structs.HostLayout
	index, nargs, nresults, flags uint32
	attempt, nameLen              uint32
	timeout                       int64
	taskOwner, taskSeq            uint64
	itemsDone, reserved           uint64
}

type rawCallArg struct {
	_                               structs.HostLayout
	encoding, meta                  uint32
	len                             uint64
	handle, offset, nrefs, reserved uint32
}

type rawHTTPRequest struct {
	_                      structs.HostLayout
	urlPtr, urlLen         uint32
	methodPtr, methodLen   uint32
	headersPtr, headersLen uint32
	body, flags            uint32
	timeout                uint64
}

type rawEvent struct {
	_            structs.HostLayout
	kind, handle uint32
	arg          uint64
}

// Each line compiles only when the two numbers are equal.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(rawValue{})-abi.ValueSize]
	_ = [1]struct{}{}[unsafe.Offsetof(rawValue{}.meta)-abi.ValueMeta]
	_ = [1]struct{}{}[unsafe.Offsetof(rawValue{}.ptr)-abi.ValuePtr]
	_ = [1]struct{}{}[unsafe.Offsetof(rawValue{}.refsLen)-abi.ValueRefsLen]
	_ = [1]struct{}{}[unsafe.Sizeof(rawArg{})-abi.ArgSize]
	_ = [1]struct{}{}[unsafe.Offsetof(rawArg{}.value)-abi.ArgValue]
	_ = [1]struct{}{}[unsafe.Sizeof(rawSpec{})-abi.SpecSize]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.resultsPtr)-abi.SpecResultsPtr]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.cpu)-abi.SpecCPU]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.memory)-abi.SpecMemory]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.timeout)-abi.SpecTimeout]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.window)-abi.SpecWindow]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.actor)-abi.SpecActorRef]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.maxPending)-abi.SpecMaxPending]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.idle)-abi.SpecIdle]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.checkpointEvery)-abi.SpecCheckpointEvery]
	_ = [1]struct{}{}[unsafe.Offsetof(rawSpec{}.placePtr)-abi.SpecPlacePtr]
	_ = [1]struct{}{}[unsafe.Sizeof(rawInfo{})-abi.InfoSize]
	_ = [1]struct{}{}[unsafe.Offsetof(rawInfo{}.nrefs)-abi.InfoNrefs]
	_ = [1]struct{}{}[unsafe.Sizeof(rawCall{})-abi.CallSize]
	_ = [1]struct{}{}[unsafe.Offsetof(rawCall{}.timeout)-abi.CallTimeout]
	_ = [1]struct{}{}[unsafe.Offsetof(rawCall{}.itemsDone)-abi.CallItemsDone]
	_ = [1]struct{}{}[unsafe.Sizeof(rawCallArg{})-abi.CallArgSize]
	_ = [1]struct{}{}[unsafe.Offsetof(rawCallArg{}.offset)-abi.CallArgOffset]
	_ = [1]struct{}{}[unsafe.Sizeof(rawHTTPRequest{})-abi.HTTPRequestSize]
	_ = [1]struct{}{}[unsafe.Offsetof(rawHTTPRequest{}.methodPtr)-abi.HTTPRequestMethodPtr]
	_ = [1]struct{}{}[unsafe.Offsetof(rawHTTPRequest{}.headersLen)-abi.HTTPRequestHeadersLen]
	_ = [1]struct{}{}[unsafe.Offsetof(rawHTTPRequest{}.body)-abi.HTTPRequestBody]
	_ = [1]struct{}{}[unsafe.Offsetof(rawHTTPRequest{}.timeout)-abi.HTTPRequestTimeout]
	_ = [1]struct{}{}[unsafe.Sizeof(rawEvent{})-abi.EventSize]
	_ = [1]struct{}{}[unsafe.Offsetof(rawEvent{}.arg)-abi.EventArg]
)

// addr is the address of p in linear memory. p must point to a global or to
// the heap: stacks move.
func addr(p unsafe.Pointer) uint32 { return uint32(uintptr(p)) }

// bytesAddr is the address of b's first byte, under the same condition.
func bytesAddr(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// ok reports whether an import succeeded.
func ok(errno uint32) bool { return abi.Errno(errno) == abi.Success }
