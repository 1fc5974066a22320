package wray

import "testing"

// Limits are told in units that people count in, and kept in those of the
// program.
func TestLimitUnits(t *testing.T) {
	for _, c := range []struct {
		limit Limit
		want  string
	}{
		{Limit{Name: "cpu", Value: 25_000, Unit: UnitCPU, Flag: "--cpus"}, "LimitExceeded (limit cpu = 2.5 cores, raise it with --cpus)"},
		{Limit{Name: "gpu", Value: 0, Unit: UnitAmount}, "LimitExceeded (limit gpu = 0)"},
		{Limit{Name: "timeout", Value: 100e6, Unit: UnitTime}, "LimitExceeded (limit timeout = 100ms)"},
		{Limit{Name: "memory", Value: 7, Unit: "bytes"}, "LimitExceeded (limit memory = 7 bytes)"},
		{Limit{Name: "items", Value: 3}, "LimitExceeded (limit items = 3)"},
	} {
		if got := (&Error{Code: CodeLimitExceeded, Limit: &c.limit}).Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
