package sandbox

import "testing"

// LimitKeeps has at most n keeps besides those that there are, in a test.
func LimitKeeps(t *testing.T, n int64) {
	was, most := maxKeeps, keeps.Load()+n
	maxKeeps = func() int64 { return most }
	t.Cleanup(func() {
		maxKeeps = was
		if left := keeps.Load(); left != most-n {
			t.Errorf("%d keeps are left", left-most+n)
		}
	})
}

// CanKeep reports whether there are keeps on this machine.
func CanKeep() bool { return pagemap() >= 0 }
