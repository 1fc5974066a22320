package liveness

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScripts runs testdata: what is decided, to be read. After a wanted change
// run
//
//	go test ./host/cluster/liveness -run TestScripts -rewrite
//
// and read the diff. Each line of a command's input is an event:
//
//	wait DURATION            time passes, with a Tick at its end, and at each Next
//	register NODE INC        lapse NODE INC REVISION      condemn NODE INC
//	reply NODE INC           closed NODE INC              control up|down
//	forget NODE              show
//	self granted             renewed DURATION-AGO         self lapsed|condemned
//	may                      whether the node itself may act
//
// Each output is preceded by the time at which it came.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		e := &env{view: NewView(Config{}, 0)}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			e.out.Reset()
			for line := range strings.Lines(d.Input) {
				if err := e.line(strings.Fields(line)); err != nil {
					d.Fatalf(t, "%s: %v", line, err)
				}
			}
			if e.out.Len() == 0 {
				return "nothing\n"
			}
			return e.out.String()
		})
	})
}

type env struct {
	now  time.Duration
	view *View
	self *Self
	out  strings.Builder
}

func (e *env) line(f []string) error {
	if len(f) == 0 {
		return nil
	}
	var node string
	var inc uint64
	var rev int64
	switch f[0] {
	case "register", "condemn", "reply", "closed":
		node = f[1]
		if _, err := fmt.Sscan(f[2], &inc); err != nil {
			return err
		}
	case "lapse":
		node = f[1]
		if _, err := fmt.Sscan(f[2]+" "+f[3], &inc, &rev); err != nil {
			return err
		}
	}
	switch strings.Join(f[:min(2, len(f))], " ") {
	case "control up":
		e.view.ControlUp(e.now)
		return nil
	case "control down":
		e.view.ControlDown(e.now)
		return nil
	case "self granted":
		e.self = NewSelf(Config{}, 0, e.now)
		return nil
	case "self lapsed":
		e.self.Lapsed()
		return nil
	case "self condemned":
		e.self.Condemned()
		return nil
	}
	switch f[0] {
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			return err
		}
		end := e.now + d
		for {
			at, ok := e.view.Next()
			if !ok || at >= end {
				break
			}
			e.now = at
			e.decided(e.view.Tick(e.now))
		}
		e.now = end
		e.decided(e.view.Tick(e.now))
	case "register":
		e.decided(e.view.Registered(e.now, node, inc))
	case "condemn":
		e.decided(e.view.Condemned(e.now, node, inc))
	case "reply":
		e.decided(e.view.Reply(e.now, node, inc))
	case "closed":
		e.decided(e.view.Closed(e.now, node, inc))
	case "lapse":
		e.decided(e.view.Lapsed(e.now, node, inc, rev))
	case "forget":
		e.view.Forget(f[1])
	case "show":
		e.out.WriteString(e.view.String())
	case "renewed":
		ago, err := time.ParseDuration(f[1])
		if err != nil {
			return err
		}
		e.self.Renewed(e.now - ago)
	case "may":
		fmt.Fprintf(&e.out, "%v: may act: %v\n", e.now, e.self.MayAct(e.now))
	default:
		return fmt.Errorf("no such event")
	}
	return nil
}

func (e *env) decided(ds []Decision) {
	for _, d := range ds {
		switch d := d.(type) {
		case Change:
			fmt.Fprintf(&e.out, "%v: %s#%d is %v: %s\n", e.now, d.Node, d.Incarnation, d.To, d.Why)
		case Propose:
			fmt.Fprintf(&e.out, "%v: propose that %s#%d is dead, lapsed at %d\n", e.now, d.Node, d.Incarnation, d.Lapsed)
		}
	}
}
