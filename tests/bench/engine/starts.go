package engine

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/wray-project/wray/host/node"
	"github.com/wray-project/wray/host/worker"
)

const (
	caseStart      = "node start, to the end of an empty job"
	caseStartFirst = "node start, to a Go driver's first task done"
	caseChurn      = "put and drop 20 times the store's capacity"
)

// emptyCommand is a module whose _start does nothing.
var emptyCommand = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type 0: () -> ()
	"\x03\x02\x01\x00" + // function 0: type 0
	"\x05\x03\x01\x00\x01" + // a memory of one page
	"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" +
	"\x0a\x04\x01\x02\x00\x0b") // its body: end

// starts measures from node.New, with its process starts, to what a user
// waits for. Compiled code is in the cache, as from the second run on.
func starts(ctx context.Context, c *Config) error {
	for _, x := range []struct {
		name string
		wasm []byte
		args []string
	}{{caseStart, emptyCommand, nil}, {caseStartFirst, c.Guest, []string{"first"}}} {
		if !c.wants(x.name) {
			continue
		}
		var ms []float64
		for range c.Rounds + 1 {
			d, err := start(ctx, c, x.wasm, x.args)
			if err != nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			ms = append(ms, float64(d)/float64(time.Millisecond))
		}
		if err := c.emit(x.name, "ms", ms[1:]); err != nil { // the first may compile
			return err
		}
	}
	return nil
}

// start returns the time from nothing to the job's first output, or to its end
// where it prints nothing.
func start(ctx context.Context, c *Config, wasm []byte, args []string) (time.Duration, error) {
	begin := time.Now()
	n, err := node.New(node.Config{CacheDir: c.Cache})
	if err != nil {
		return 0, err
	}
	defer n.Close()
	var at time.Duration
	code, err := n.Run(ctx, node.Job{Name: "start", Modules: []node.Module{{Name: "start", Wasm: wasm}}, Args: args,
		Output: func(string, worker.Stream, []byte) {
			if at == 0 {
				at = time.Since(begin)
			}
		}})
	if at == 0 {
		at = time.Since(begin)
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("exit status %d", code)
	}
	return at, err
}

// churnStore is the store of the node that churn uses: small, so that twenty
// times its capacity is soon put.
const churnStore = 64 << 20

// churn has a driver put and forget twenty times what the store holds: it ends
// well only if the store makes the driver collect its garbage.
func churn(ctx context.Context, c *Config) error {
	if !c.wants(caseChurn) {
		return nil
	}
	n, err := node.New(node.Config{CacheDir: c.Cache, StoreBytes: churnStore})
	if err != nil {
		return err
	}
	defer n.Close()
	var rates []float64
	for range c.Rounds {
		begin := time.Now()
		var out bytes.Buffer
		code, err := n.Run(ctx, node.Job{Name: "churn", Modules: []node.Module{{Name: "churn", Wasm: c.Guest}},
			Args:   []string{"churn", strconv.Itoa(20 * churnStore)},
			Output: func(_ string, _ worker.Stream, p []byte) { out.Write(p) }})
		if err == nil && code != 0 {
			err = fmt.Errorf("exit status %d: %s", code, out.Bytes())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", caseChurn, err)
		}
		rates = append(rates, 20*float64(churnStore)/gib/time.Since(begin).Seconds())
	}
	return c.emit(caseChurn, "GiB/s", rates)
}
