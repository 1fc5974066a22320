package node

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/control"
)

// A tenant may be kept to nodes by their labels, and have them for itself alone.
// Each node holds that itself, by the records that it follows and its own labels:
// it takes no job of a tenant that it is not for, starts no worker of it, and knows
// none of its workers on other nodes, whatever those say. So the tenant's other
// workers know of none here either, and lend it nothing.

// barredBy says why nothing of a tenant runs on a node with these labels; "": it
// may. Another tenant is not named.
func barredBy(name string, records map[string]control.Tenant, labels []wray.Label) string {
	if r, ok := records[name]; ok && !r.On(labels) {
		return fmt.Sprintf("it is not one of the nodes of tenant %s, which have %s", name, strings.Join(r.Nodes, " and "))
	}
	for other, r := range records {
		if other != name && r.Exclusive && r.On(labels) {
			return "it is kept for another tenant"
		}
	}
	return ""
}

// labels are those of this node.
func (n *Node) labels() []wray.Label { return wray.NodeLabels(n.cfg.Name, n.cfg.Labels) }

// barredLocked is why nothing of a tenant runs on this node, nil where it may. n.mu
// is held.
func (n *Node) barredLocked(name string) *wray.Error {
	why := barredBy(name, n.records, n.labels())
	if why == "" {
		return nil
	}
	return &wray.Error{Code: wray.CodeDenied, Node: n.cfg.Name, Message: fmt.Sprintf("node %s runs nothing of tenant %s: %s", n.cfg.Name, name, why),
		Hint: "submit it to a node that does; an operator sees which those are with wray tenant show " + name + ", and changes that with wray tenant set " + name + " --nodes"}
}

// barred reports whether nothing of a tenant runs here.
func (n *Node) barred(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.barredLocked(name) != nil
}

// barredAt says why nothing of a tenant runs on another node, "" where it may.
func (n *Node) barredAt(name string, labels map[string]string) string {
	return barredBy(name, n.cordons(), labelList(labels))
}

// expel has a worker go that is not to be here any more: it takes nothing of its
// peers from now on, what they have lent it ends or is given back, and it ends with
// the last of its own jobs.
func (t *tenant) expel() {
	t.n.mu.Lock()
	w := t.worker
	first := w != nil && !w.expelled && t.endedLocked() == nil
	if first {
		w.expelled, t.stale = true, true
	}
	t.n.mu.Unlock()
	if !first {
		return
	}
	t.ending.Go(func() {
		if t.peers != nil {
			ctx, cancel := context.WithTimeout(t.n.living, DefaultDrain+drainAfter)
			_, err := t.leave(ctx, time.Duration(DefaultDrain))
			cancel()
			if err != nil {
				slog.Warn("a worker that is to leave its node", "tenant", t.name, "err", err)
			}
		}
		select {
		case w.look <- struct{}{}: // it is ended when it has nothing to do
		default:
		}
	})
}
