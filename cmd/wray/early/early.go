// Package early makes the program a worker or a compiler, where it is to be
// one, before most of its packages are set up. Packages are initialised in the
// order of their import paths, as far as their imports allow (The Go
// Programming Language Specification, "Program initialization"): this one needs
// little, and comes before etcd and gRPC, whose initialisation takes
// milliseconds and which these processes never use.
package early

import (
	"os"

	"github.com/wray-project/wray/host/child"
)

func init() {
	if code, ok := child.Run(os.Args); ok {
		os.Exit(code)
	}
}
