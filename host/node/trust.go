package node

import (
	"errors"
	"fmt"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/wasm/signature"
)

// TrustFlag is the flag that says who must have signed modules.
const TrustFlag = "--trust"

// admits refuses a module that nobody has signed who is trusted to, before
// anything else is done with it.
func (c *Config) admits(tenant string, wasm []byte) error {
	signers, own := c.TrustOf[tenant]
	if !own {
		signers = c.Trust
	}
	if len(signers) == 0 && !own {
		return nil
	}
	module, d, err := signature.Split(wasm)
	if err == nil {
		_, err = signature.Verify(module, d, signers)
	}
	if err == nil {
		return nil
	}
	e := &wray.Error{Code: wray.CodeDenied, Node: c.Name, Message: err.Error()}
	switch {
	case errors.Is(err, signature.ErrFormat):
		e.Code = wray.CodeInvalidModule
	case errors.Is(err, signature.ErrNone):
		e.Hint = "the node takes modules that are signed (" + TrustFlag + "): sign it by wray module sign, or as it is sent, by --sign"
	default:
		e.Hint = fmt.Sprintf("the node trusts %s (%s); wray module inspect shows who says to have signed it", names(signers), TrustFlag)
	}
	return e
}

// names are those of signers, for a person.
func names(signers []signature.Signer) string {
	const most = 5
	var list []string
	for _, s := range signers[:min(len(signers), most)] {
		list = append(list, s.Name)
	}
	if n := len(signers) - most; n > 0 {
		list = append(list, fmt.Sprintf("%d more", n))
	}
	if list == nil {
		return "nobody"
	}
	return strings.Join(list, ", ")
}
