package rewrite

import "testing"

// TestCorpusMeter meters every module: valid stays valid, invalid stays invalid.
func TestCorpusMeter(t *testing.T) {
	valid := validator(t)
	accepted := 0
	corpus(t, func(name string, b []byte) {
		for _, o := range []Options{{TailCalls: true, Meter: true}, {TailCalls: true, Meter: true, Snapshot: true}} {
			a, err := Rewrite(b, o)
			if err != nil {
				continue
			}
			engine, got := valid(b), valid(a.Wasm)
			if (engine == nil) != (got == nil) {
				t.Errorf("%s: the engine says of the original: %v; of the metered: %v", name, engine, got)
			}
			if got == nil {
				accepted++
			}
		}
	})
	t.Logf("%d accepted", accepted)
	if accepted < 5000 {
		t.Errorf("only %d accepted", accepted)
	}
}
