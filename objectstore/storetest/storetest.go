// Package storetest holds every form of the object store to the same
// contract: Run is its conformance suite. A form is a Config; the suite makes
// stores from it, and at the end of each test nothing may be left of them.
package storetest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"sync/atomic"
	"testing"

	wray "github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// Suite says which form of the store is held to the contract.
type Suite struct {
	// Config is the form: what tests do not set themselves is taken from it.
	Config objectstore.Config

	// Map maps a window privately, as a sandbox would, and returns its bytes
	// and how to unmap them. nil: objects of this form are not mappable.
	Map func(t testing.TB, w *objectstore.Window) (b []byte, unmap func())
}

// Run runs the suite.
func Run(t *testing.T, s Suite) {
	tests := []struct {
		name string
		run  func(*testing.T, Suite)
	}{
		{"PutGet", testPutGet},
		{"BadValues", testBadValues},
		{"Declare", testDeclare},
		{"FirstResultStands", testFirstResultStands},
		{"Fail", testFail},
		{"FailInAFullStore", testFailInAFullStore},
		{"Lookup", testLookup},
		{"Misuse", testMisuse},
		{"Watch", testWatch},
		{"WatchCancel", testWatchCancel},
		{"WatchHoldsReference", testWatchHoldsReference},
		{"Wait", testWait},
		{"ReferencesKeepAlive", testReferencesKeepAlive},
		{"SelfReference", testSelfReference},
		{"LongChain", testLongChain},
		{"WideObject", testWideObject},

		{"Full", testFull},
		{"LargerThanStore", testLargerThanStore},
		{"CapacityIsExact", testCapacityIsExact},
		{"EmptyObjectsCount", testEmptyObjectsCount},
		{"WaitersInOrder", testWaitersInOrder},
		{"NobodyOvertakes", testNobodyOvertakes},
		{"SmallPassesWaiters", testSmallPassesWaiters},
		{"CanceledWaiterLetsOthersPass", testCanceledWaiterLetsOthersPass},
		{"WaitSpaceContext", testWaitSpaceContext},
		{"ReservationIsKept", testReservationIsKept},
		{"Reservation", testReservation},
		{"Buffer", testBuffer},
		{"Lendable", testLendable},
		{"SealAs", testSealAs},
		{"Free", testFree},
		{"TwentyTimesCapacity", testTwentyTimesCapacity},
		{"OtherSizesMakeRoom", testOtherSizesMakeRoom},
		{"Close", testClose},
		{"CloseWithObjects", testCloseWithObjects},

		{"Recycling", testRecycling},
		{"StaleBytes", testStaleBytes},
		{"Windows", testWindows},
		{"WindowsDelayReuse", testWindowsDelayReuse},
		{"WindowsGiveRoom", testWindowsGiveRoom},
		{"MaxSegments", testMaxSegments},
		{"Trim", testTrim},
		{"TrimIdle", testTrimIdle},

		{"Handles", testHandles},
		{"HandlesLimit", testHandlesLimit},
		{"HandleTags", testHandleTags},

		{"Stream", testStream},
		{"StreamWindow", testStreamWindow},
		{"StreamRetry", testStreamRetry},
		{"StreamFailure", testStreamFailure},
		{"StreamDrop", testStreamDrop},
		{"StreamWatch", testStreamWatch},

		{"Random", testRandom},
		{"Hammer", testHammer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, s) })
	}
}

// open makes a store whose end is checked: when the test is over it is closed,
// and then no object, window, waiter, segment or byte may be left.
func (s Suite) open(t testing.TB, set func(*objectstore.Config)) *objectstore.Store {
	t.Helper()
	cfg := s.Config
	if set != nil {
		set(&cfg)
	}
	st, err := objectstore.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		f := st.Stats()
		if f.Objects != 0 || f.Used != 0 || f.Windows != 0 || f.Waiting != 0 || f.Segments != 0 || f.Pooled != 0 {
			t.Errorf("left over after Close: %+v", f)
		}
	})
	return st
}

func capacity(n int64) func(*objectstore.Config) {
	return func(c *objectstore.Config) { c.Capacity = n }
}

var lastSeq atomic.Uint64

// newID returns an ID that no other call returns.
func newID() wray.ID { return wray.ID{Owner: 7, Seq: lastSeq.Add(1)} }

// pattern returns n bytes that seed decides.
func pattern(seed uint64, n int) []byte {
	// By a cipher, whose loops the race detector does not watch.
	var key, iv [aes.BlockSize]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	b := make([]byte, n)
	cipher.NewCTR(block, iv[:]).XORKeyStream(b, b)
	return b
}

func raw(p []byte, refs ...*objectstore.Object) objectstore.Value {
	return objectstore.Value{Encoding: abi.EncodingRaw, Payload: p, Refs: refs}
}

func put(t testing.TB, s *objectstore.Store, p []byte, refs ...*objectstore.Object) *objectstore.Object {
	t.Helper()
	o, err := s.TryPut(newID(), raw(p, refs...))
	if err != nil {
		t.Fatalf("TryPut of %d bytes: %v", len(p), err)
	}
	return o
}

func declare(t testing.TB, s *objectstore.Store) *objectstore.Object {
	t.Helper()
	o, err := s.Declare(newID())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s: byte %d of %d is %#x: expected %#x", what, i, len(want), got[i], want[i])
			return
		}
	}
	t.Errorf("%s: %d bytes: expected %d", what, len(got), len(want))
}

func wantPanic(t testing.TB, what string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}
