package sdk

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk/internal/rt"
	"github.com/wray-project/wray/wasm/abi"
)

// TestHints holds that the hint of what went wrong survives what is made of it.
func TestHints(t *testing.T) {
	refused := &wray.Error{Code: wray.CodeBadArgument, Message: "submit: this node keeps no durable actors", Hint: "start it with --state DIR"}
	made := &wray.Error{Code: wray.CodeBadArgument, Task: "account", Cause: refused}
	for _, c := range []struct {
		err  error
		want string
	}{
		{badArgument(0, fmt.Errorf("actor: %w", made)), "--state"},
		{local("get", rt.Errno(abi.ENOMEM)), "ReadRange"},
	} {
		e, ok := c.err.(*wray.Error)
		if !ok || !strings.Contains(e.Hint, c.want) {
			t.Errorf("no %s in the hint of %#v", c.want, c.err)
		}
	}
}
