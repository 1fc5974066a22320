package sandbox_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/wasm/abi"
)

// spinner is a module whose wray_call does not return for the operation MAIN.
const spinner = "\x00asm\x01\x00\x00\x00" + "\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f" + "\x03\x02\x01\x00" + "\x05\x03\x01\x00\x01" +
	"\x07\x16\x02\x06memory\x02\x00\x09wray_call\x00\x00" +
	"\x0a\x10\x01\x0e\x00\x03\x40\x20\x00\x41\x03\x46\x0d\x00\x0b\x41\x00\x0b"

// TestStopWhileWaiting stops sandboxes that wait for a turn, which nobody gives
// up: they end all the same. In the end the turns are as many as before.
func TestStopWhileWaiting(t *testing.T) {
	m := loadInto(t, []byte(spinner), sandbox.Config{Slots: 1, Slice: time.Hour})
	make := func() *sandbox.Sandbox {
		sb, err := m.New(sandbox.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(sb.Close)
		if _, err := sb.Call(2, 0); err != nil { // it is restored
			t.Fatal(err)
		}
		return sb
	}
	expect := func(err error, code wray.Code) {
		t.Helper()
		var e *wray.Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("ended with %v, want %v", err, code)
		}
	}
	hog, killed, late, waits := make(), make(), make(), make()
	var busy, rest sync.WaitGroup
	busy.Go(func() {
		_, err := hog.Call(abi.OpMain, 0) // does not end
		expect(err, wray.CodeCanceled)
	})
	patience := time.AfterFunc(20*time.Second, func() { panic("who was stopped went on waiting") })
	defer patience.Stop()
	for have, _ := m.Turns(); have < 1; have, _ = m.Turns() {
		runtime.Gosched()
	}
	rest.Go(func() {
		_, err := waits.Call(2, 0)
		if err != nil {
			t.Error(err)
		}
	})
	var stopped sync.WaitGroup
	stopped.Go(func() {
		late.SetDeadline(time.Millisecond)
		_, err := late.Call(abi.OpMain, 0)
		expect(err, wray.CodeTimeout)
	})
	stopped.Go(func() {
		killed.Kill(wray.Errorf(wray.CodeCanceled, "before it waits"))
		_, err := killed.Call(abi.OpMain, 0)
		expect(err, wray.CodeCanceled)
		if !killed.Reset() {
			t.Error("no reset")
		}
	})
	stopped.Wait()
	stopped.Go(func() {
		_, err := killed.Call(abi.OpMain, 0)
		expect(err, wray.CodeCanceled)
	})
	for _, wait := m.Turns(); wait < 2; _, wait = m.Turns() { // waits and killed
		runtime.Gosched()
	}
	killed.Kill(wray.Errorf(wray.CodeCanceled, "while it waits"))
	stopped.Wait()
	hog.Kill(wray.Errorf(wray.CodeCanceled, "enough"))
	busy.Wait()
	rest.Wait()
	if have, wait := m.Turns(); have != 0 || wait != 0 {
		t.Errorf("%d turns are out, %d wait", have, wait)
	}
}
