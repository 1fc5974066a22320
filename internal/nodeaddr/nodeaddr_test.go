package nodeaddr

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestSocketOnNetwork names nodes by addresses of the network, which are no paths.
func TestSocketOnNetwork(t *testing.T) {
	for _, address := range []string{"192.0.2.1:7420", "[::1]:7420", "localhost:7420"} {
		if path, err := Socket(address); err == nil || !strings.Contains(err.Error(), "on the network") {
			t.Errorf("%s is %q, %v", address, path, err)
		}
	}
	for _, address := range []string{"/run/a:1", "unix:///run/a:1", "./a:1", "a.sock"} {
		if path, err := Socket(address); err != nil || !filepath.IsAbs(path) {
			t.Errorf("%s is %q, %v", address, path, err)
		}
	}
}
