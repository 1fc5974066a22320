package worker

import (
	"slices"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/abi"
)

// TestReadPlace holds that what a guest writes of where a task runs is bounded
// and checked before anything is kept, and that a guest which writes nothing, as
// those do that are older, has the default.
func TestReadPlace(t *testing.T) {
	h := newJobs(t, guestOf(128), func(*Config) {})
	g, stop := h.start(t)
	mem := hostileSpec(t, g, 0)
	spec := mem[atSpec:][:abi.SpecSize]
	where := "where\x00zone in (a, b)\x00"
	for _, c := range []struct {
		name string
		at   uint32
		text string
		n    int // -1: of text
		want abi.Errno
	}{
		{"nothing", 0, "", -1, abi.Success},
		{"a node that is not there", atPayload, "node\x00nobody\x00", -1, abi.Success},
		{"as many selectors as may be", atPayload, strings.Repeat(where, wray.MaxSelectors), -1, abi.Success},
		{"one more", atPayload, strings.Repeat(where, wray.MaxSelectors+1), -1, abi.EINVAL},
		{"no zero byte", atPayload, "node\x00nobody", -1, abi.EINVAL},
		{"a clause of the future", atPayload, "group\x00a\x00", -1, abi.EINVAL},
		{"a selector that makes no sense", atPayload, "where\x00zone west\x00", -1, abi.EINVAL},
		{"two nodes", atPayload, "node\x00a\x00prefer\x00b\x00", -1, abi.EINVAL},
		{"the bytes that may be", atPayload, "", wray.MaxPlacementText, abi.EINVAL},
		{"one more byte", atPayload, "", wray.MaxPlacementText + 1, abi.E2BIG},
		{"four gigabytes", atPayload, "", 1<<32 - 1, abi.E2BIG},
		{"outside of the memory", 1<<32 - 16, "", 64, abi.EFAULT},
	} {
		n := uint32(len(c.text))
		if c.n >= 0 {
			n = uint32(c.n)
		}
		clear(mem[atPayload:][:wray.MaxPlacementText+1])
		copy(mem[atPayload:], c.text)
		putU32(spec, abi.SpecPlacePtr, c.at)
		putU32(spec, abi.SpecPlaceLen, n)
		if e := g.call("submit", atSpec, 1, atOut); e != c.want {
			t.Errorf("%s: %d, want %d", c.name, e, c.want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestPeerPlace holds that an actor which a peer asks for is not made with a
// placement that makes no sense.
func TestPeerPlace(t *testing.T) {
	ask := func(place string) *peerMessage {
		return &peerMessage{Ask: &askBody{N: 1, Make: &lendBody{Attempt: 1, Results: 1, Make: &makeBody{Place: []byte(place)}}}}
	}
	for place, ok := range map[string]bool{"": true, "node\x00a\x00": true, "node\x00a": false, "group\x00a\x00": false,
		strings.Repeat("where\x00a\x00", wray.MaxSelectors+1): false} {
		if err := ask(place).check(); (err == nil) != ok {
			t.Errorf("%.40q: %v", place, err)
		}
	}
	bodies := LabelBodies([]wray.Label{{Key: "zone", Value: "west"}})
	if got := labelsOf(bodies); !slices.Equal(got, []wray.Label{{Key: "zone", Value: "west"}}) {
		t.Errorf("labels travelled as %v", got)
	}
}
