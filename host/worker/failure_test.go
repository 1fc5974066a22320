package worker

import (
	"errors"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// TestTooLong holds that what a guest makes too long is told with its bound: an
// error of a task, and a value.
func TestTooLong(t *testing.T) {
	h := newJobs(t, guestOf(128))
	g, stop := h.start(t)
	mem := view(g.sb.Memory())
	had := g.task
	g.task = &task{job: g.job}
	copy(mem[atSpec:], value(uint32(abi.EncodingError), 0, atPayload, abi.MaxFailure+1, 0, 0))
	if e := g.call("task_fail", atSpec); e != abi.Success || !errors.Is(g.task.failure, &wray.Error{Code: wray.CodeUserError}) ||
		!strings.Contains(g.task.failure.Message, "1048577 bytes") || g.task.failure.Hint == "" {
		t.Errorf("task_fail: %d, %v", e, g.task.failure)
	}
	text := objectstore.EncodeFailure(wray.Errorf(wray.CodeUserError, "it broke"))
	copy(mem[atPayload:], text)
	copy(mem[atSpec:], value(uint32(abi.EncodingError), 0, atPayload, uint32(len(text)), 0, 0))
	if e := g.call("task_fail", atSpec); e != abi.Success || g.task.failure.Message != "it broke" {
		t.Errorf("task_fail: %d, %v", e, g.task.failure)
	}
	g.task = had
	for _, n := range []uint64{0, abi.MaxPayload + 1, 1 << 62, 1 << 63} {
		if e := g.call("buffer_open", n, atOut); e != abi.EINVAL || g.refused == nil || g.refused.Code != wray.CodeBadArgument {
			t.Errorf("buffer_open of %d bytes: %d, %v", n, e, g.refused)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
