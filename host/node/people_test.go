package node

import (
	"errors"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
)

// TestTenantFor has everybody ask about tenants: of another than his own nobody
// hears but who runs the cluster, and what is another's looks as what is not there.
func TestTenantFor(t *testing.T) {
	var absent string
	for _, kind := range []access.Kind{access.Certed, access.User, access.Service, access.Local, access.Node} {
		for _, home := range []string{access.Home, "acme"} {
			for role := access.Viewer; role <= access.Admin; role++ {
				p := access.Principal{Kind: kind, Tenant: home, Role: role, Name: "x"}
				runs := kind != access.Node && home == access.Home && role == access.Admin
				for _, asked := range []string{"", home, "other", "nowhere"} {
					got, err := tenantFor(p, asked, false)
					own := asked == "" || asked == home
					switch {
					case own && (err != nil || got != home), !own && runs && (err != nil || got != asked):
						t.Errorf("%v asks about %q: %q, %v", p, asked, got, err)
					case !own && !runs && !errors.Is(err, wray.ErrBadArgument):
						t.Errorf("%v asks about %q: %q, %v", p, asked, got, err)
					case !own && !runs && asked == "nowhere":
						if absent == "" {
							absent = err.Error()
						}
						if err.Error() != absent {
							t.Errorf("what is not there is told apart: %q, %q", err, absent)
						}
					}
				}
				if got, err := tenantFor(p, "", true); runs != (got == "" && err == nil) {
					t.Errorf("%v asks about all: %q, %v", p, got, err)
				}
			}
		}
	}
}
