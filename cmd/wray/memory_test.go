package main

import (
	"strings"
	"testing"

	"github.com/wray-project/wray/internal/clientwire"
)

// TestMemoryTellsOfSleepers holds that what is kept of actors is printed where
// there is some.
func TestMemoryTellsOfSleepers(t *testing.T) {
	for _, c := range []struct {
		m    clientwire.Memory
		want []string
	}{
		{clientwire.Memory{}, nil},
		{clientwire.Memory{Kept: 3 << 20, KeptOnDisk: 5 << 10, Undrained: 7}, []string{
			"actors that sleep, and checkpoints: 3 MiB of memory, 5 KiB on disk\n",
			"no checkpoint, as calls under way did not end: 7 times\n"}},
	} {
		var out strings.Builder
		if err := printMemory(&out, "s", c.m); err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%q is not in\n%s", w, out.String())
			}
		}
		if c.want == nil && strings.Contains(out.String(), "checkpoint") {
			t.Errorf("of none it says\n%s", out.String())
		}
	}
}
