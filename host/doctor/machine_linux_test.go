package doctor

import "testing"

func TestMeminfo(t *testing.T) {
	const text = "MemTotal:       16384 kB\nMemAvailable:    512 kB\nEmpty:\nBad: x kB\nHuge: 9223372036854775807 kB\n"
	for key, want := range map[string]int64{"MemTotal": 16384 << 10, "MemAvailable": 512 << 10, "Empty": 0, "Bad": 0, "Huge": 0, "None": 0} {
		if got := meminfo(text, key); got != want {
			t.Errorf("%s: %d, want %d", key, got, want)
		}
	}
}

func TestSelected(t *testing.T) {
	for s, want := range map[string]string{"always within_size [advise] never\n": "advise", "[never]": "never", "none": "", "[open": ""} {
		if got := selected(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
