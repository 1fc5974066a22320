package worker

import (
	"errors"
	"fmt"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// refuse answers a call with e and keeps why, so that the guest can ask for it:
// an errno has no room for the limit that was passed and the flag that raises
// it.
func (g *guest) refuse(err error, e abi.Errno) abi.Errno {
	g.refused = nil
	errors.As(err, &g.refused)
	return e
}

// refusal is the import that tells why the call before it was refused.
func refusal(g *guest, v view, s []uint64) abi.Errno {
	buf, ok := v.bytes(uint32(s[0]), uint32(s[1]))
	if !ok {
		return abi.EFAULT
	}
	outLen, ok := v.bytes(uint32(s[2]), 4)
	if !ok {
		return abi.EFAULT
	}
	if g.refused == nil {
		return abi.ENOENT
	}
	why := objectstore.EncodeFailure(g.refused)
	putU32(outLen, 0, uint32(len(why)))
	if len(why) > len(buf) {
		return abi.EOVERFLOW
	}
	copy(buf, why)
	return abi.Success
}

// tooMany refuses a call that carries n of something, and may have most.
func (g *guest) tooMany(what string, n uint32, most int64) abi.Errno {
	return g.refuse(&wray.Error{
		Code: wray.CodeLimitExceeded, Message: fmt.Sprintf("one call has %d %s", n, what),
		Limit: &wray.Limit{Name: what, Value: most},
	}, abi.E2BIG)
}
