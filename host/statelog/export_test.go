package statelog

import "testing"

// RewriteAt has files of n bytes count as long during the test.
func RewriteAt(t *testing.T, n int64) {
	was := minRewrite
	minRewrite = n
	t.Cleanup(func() { minRewrite = was })
}
