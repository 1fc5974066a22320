package main

import (
	"strings"
	"testing"

	"github.com/wray-project/wray/host/sandbox"
	"github.com/wray-project/wray/internal/clientwire"
)

// TestWants holds that a module is said to ask for what its imports are of use for.
func TestWants(t *testing.T) {
	i := &sandbox.Inspection{Imports: []sandbox.InspectedImport{{Name: "http_fetch", Grant: "egress"}, {Name: "path_open", Grant: "dirs"}, {Name: "fd_read", Grant: "files"}, {Name: "path_link", Grant: "dirs"}}}
	if got := wants(i); got != "directories (--dir), HTTP (--egress)" {
		t.Errorf("%q", got)
	}
	if got := wants(&sandbox.Inspection{}); got != "nothing" {
		t.Errorf("%q", got)
	}
}

// TestExplainGrants holds that grants of jobs are printed, and those marked that the
// policy has no more.
func TestExplainGrants(t *testing.T) {
	x := &clientwire.Explained{Jobs: []clientwire.Job{{Number: 4, Name: "j", Grants: []clientwire.JobGrant{{Grant: "dir=/data"}, {Grant: "egress=a.b", Refused: true}}}, {Number: 5, Name: "k"}}}
	var out strings.Builder
	if err := printWaits(&out, x, false); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "job 4, j, is granted dir=/data, egress=a.b\n") || !strings.Contains(got, "policy does not have egress=a.b;") || strings.Contains(got, "job 5") {
		t.Errorf("%q", got)
	}
	out.Reset()
	if err := printWaits(&out, x, true); err != nil || strings.Contains(out.String(), "granted") {
		t.Errorf("%q, %v", out.String(), err)
	}
}
