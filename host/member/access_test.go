package member

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/cluster/directory"
	"github.com/wray-project/wray/host/control"
)

// TestAccess has a node that was taken over try what is not its: others'
// records, lives and leases, the secrets of those who join, and to be a head.
func TestAccess(t *testing.T) {
	m := control.NewMemory(control.MemoryOptions{})
	defer m.Close()
	a := newAccess(m)
	now := time.Now()
	a.now = func() time.Time { return now }
	ctx := context.Background()
	mallory, victim := a.of(auth.Identity{Name: "mallory"}), a.of(auth.Identity{Name: "victim"})
	table := control.NewTable[directory.Node](m, control.KindNode, 1)
	record := func(n directory.Node) []byte {
		b, err := table.Encode(n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := record(directory.Node{Incarnation: 1, Addr: "127.0.0.1:1"})

	// What a node does: its record with a lease, which it keeps, and its end.
	register := func(s control.Store, name string) control.Lease {
		l, err := s.Grant(ctx, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(ctx, control.Txn{If: []control.Cond{control.Absent("node/cluster/" + name)},
			Do: []control.Op{control.PutLeased("node/cluster/"+name, good, l.ID)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.KeepAlive(ctx, l.ID); err != nil {
			t.Fatal(err)
		}
		return l
	}
	theirs, own := register(victim, "victim"), register(mallory, "mallory")
	for _, kv := range []string{"token/cluster/x", "identity/cluster/victim", "drain/cluster/victim", "kv/t/x", "gossip/cluster/key", "revoked/cluster/x"} {
		if _, err := m.Commit(ctx, control.Txn{Do: []control.Op{control.Put(kv, []byte("secret"))}}); err != nil {
			t.Fatal(err)
		}
	}
	job := func(node string) []byte {
		b, err := control.Jobs(m).Encode(control.Job{State: control.JobRunning, Node: node})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, node := range []string{"victim", "mallory"} { // of its own it writes what it likes
		if _, err := a.of(auth.Identity{Name: node}).Commit(ctx, control.Txn{Do: []control.Op{control.Put(jobKey(map[string]string{"victim": "z", "mallory": "m"}[node]), job(node))}}); err != nil {
			t.Fatal(err)
		}
	}
	before, err := m.List(ctx, control.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}

	commit := func(op control.Op, conds ...control.Cond) func() error {
		return func() error {
			_, err := mallory.Commit(ctx, control.Txn{If: conds, Do: []control.Op{op}})
			return err
		}
	}
	list := func(prefix string) func() error {
		return func() error {
			_, err := mallory.List(ctx, control.ListRequest{Prefix: prefix})
			return err
		}
	}
	for what, c := range map[string]struct {
		do   func() error
		want error
	}{
		"another's record":        {commit(control.PutLeased("node/cluster/victim", good, own.ID)), control.ErrDenied},
		"another's record away":   {commit(control.Delete("node/cluster/victim")), control.ErrDenied},
		"another's death":         {commit(control.Put("node/dead/victim", good)), control.ErrDenied},
		"its own death undone":    {commit(control.Delete("node/dead/mallory")), control.ErrDenied},
		"a longer name":           {commit(control.Put("node/cluster/mallory/x", good)), control.ErrDenied},
		"a revocation":            {commit(control.Put("revoked/cluster/y", nil)), control.ErrDenied},
		"a revocation away":       {commit(control.Delete("revoked/cluster/x")), control.ErrDenied},
		"a token":                 {commit(control.Put("token/cluster/y", nil)), control.ErrDenied},
		"an identity":             {commit(control.Put("identity/cluster/mallory", nil)), control.ErrDenied},
		"the gossip's key":        {commit(control.Put("gossip/cluster/key", nil)), control.ErrDenied},
		"an order":                {commit(control.Put("drain/cluster/victim", nil)), control.ErrDenied},
		"an order to itself":      {commit(control.Put("drain/cluster/mallory", nil)), control.ErrDenied},
		"a job that is none":      {commit(control.Put(jobKey("y"), nil)), control.ErrInvalid},
		"another's job":           {commit(control.Put(jobKey("z"), job("mallory"))), control.ErrDenied},
		"another's job away":      {commit(control.Delete(jobKey("z"))), control.ErrDenied},
		"a job in another's name": {commit(control.Put(jobKey("y"), job("victim"))), control.ErrDenied},
		"a job of no job's name":  {commit(control.Put("job/t/y", job("mallory"))), control.ErrInvalid},
		"a job with a lease":      {commit(control.PutLeased(jobKey("y"), job("mallory"), own.ID)), control.ErrInvalid},
		"a large job":             {commit(control.Put(jobKey("y"), append(job("mallory"), make([]byte, maxRecord)...))), control.ErrTooLarge},
		"a key of no kind":        {commit(control.Put("x", nil)), control.ErrDenied},
		"two at once": {func() error {
			_, err := mallory.Commit(ctx, control.Txn{Do: []control.Op{control.PutLeased("node/cluster/mallory", good, own.ID), control.Put("kv/t/x", nil)}})
			return err
		}, control.ErrDenied},
		"a look by a condition":     {commit(control.PutLeased("node/cluster/mallory", good, own.ID), control.Absent("token/cluster/x")), control.ErrDenied},
		"to be a head":              {commit(control.PutLeased("node/cluster/mallory", record(directory.Node{Incarnation: 2, Addr: "x:1", Head: true}), own.ID)), control.ErrDenied},
		"a record that is none":     {commit(control.PutLeased("node/cluster/mallory", []byte("x"), own.ID)), control.ErrInvalid},
		"a record that stays":       {commit(control.Put("node/cluster/mallory", good)), control.ErrLeaseLapsed},
		"another's lease":           {commit(control.PutLeased("node/cluster/mallory", good, theirs.ID)), control.ErrLeaseLapsed},
		"another kept alive":        {func() error { return mallory.KeepAlive(ctx, theirs.ID) }, control.ErrLeaseLapsed},
		"another's lease revoked":   {func() error { return mallory.Revoke(ctx, theirs.ID) }, nil}, // and it is not
		"a long lease":              {func() error { _, err := mallory.Grant(ctx, time.Hour); return err }, control.ErrTooLarge},
		"tokens":                    {list("token/"), control.ErrDenied},
		"identities":                {list("identity/cluster/"), control.ErrDenied},
		"everything":                {list(""), control.ErrDenied},
		"all that begins so":        {list("no"), control.ErrDenied},
		"others' orders":            {list("drain/"), control.ErrDenied},
		"others' orders one by one": {func() error { _, err := mallory.Get(ctx, "drain/cluster/victim"); return err }, control.ErrDenied},
		"a token's hash":            {func() error { _, err := mallory.Get(ctx, "token/cluster/x"); return err }, control.ErrDenied},
		"a watch of everything":     {func() error { _, err := mallory.Watch(ctx, "", 0); return err }, control.ErrDenied},
		"nodes":                     {list("node/"), nil},
		"revocations":               {list("revoked/cluster/"), nil},
		"the key to gossip with":    {func() error { _, err := mallory.Get(ctx, "gossip/cluster/key"); return err }, nil},
	} {
		if err := c.do(); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	after, err := m.List(ctx, control.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if after.Revision != before.Revision {
		t.Errorf("the control state changed: revision %d, it was %d", after.Revision, before.Revision)
	}
	// Of jobs it has no more than nodes keep.
	for i := 0; ; i++ {
		id := fmt.Sprintf("%04d", i)
		id = strings.NewReplacer("0", "a", "1", "b", "8", "c", "9", "d").Replace(id)
		_, err := mallory.Commit(ctx, control.Txn{Do: []control.Op{control.Put("job/t/job-"+strings.Repeat("a", 12)+id, job("mallory"))}})
		if errors.Is(err, control.ErrTooLarge) && i == maxTenantJobs-1 {
			break
		} else if err != nil || i == maxTenantJobs {
			t.Fatalf("job %d: %v", i, err)
		}
	}
	// One tenant's are no more for another's, until there are too many of all.
	a.jobs = maxTenantJobs + 2
	for i, tenant := range []string{"u", "u", "v"} {
		_, err := mallory.Commit(ctx, control.Txn{Do: []control.Op{control.Put(fmt.Sprintf("job/%s/job-%s%c", tenant, strings.Repeat("a", 15), 'a'+i), job("mallory"))}})
		if errors.Is(err, control.ErrTooLarge) != (i == 2) || err != nil && i < 2 {
			t.Errorf("a job of tenant %s: %v", tenant, err)
		}
	}
	// Of leases a node has few, and gets others when they are over.
	for i := 0; ; i++ {
		if _, err := mallory.Grant(ctx, time.Minute); errors.Is(err, control.ErrTooLarge) {
			break
		} else if err != nil || i > maxLeases {
			t.Fatalf("lease %d: %v", i, err)
		}
	}
	now = now.Add(time.Hour)
	if _, err := mallory.Grant(ctx, time.Minute); err != nil {
		t.Error(err)
	}
	// A head that did not grant the lease knows whose it is by the record.
	other := newAccess(m)
	if err := other.of(auth.Identity{Name: "victim"}).KeepAlive(ctx, theirs.ID); err != nil {
		t.Error(err)
	}
	if err := other.of(auth.Identity{Name: "mallory"}).KeepAlive(ctx, theirs.ID); !errors.Is(err, control.ErrLeaseLapsed) {
		t.Errorf("another's lease at another head: %v", err)
	}
}

// TestBoot has the connections end that a node made before it knew what is
// revoked.
func TestBoot(t *testing.T) {
	ctx, _, _, join := alone(t)
	a := join("a")
	w := a.Nodes().Watch()
	defer w.Close()
	for there := true; there; {
		a.mu.Lock()
		there = a.boot != nil
		a.mu.Unlock()
		if there { // a change of the nodes it knows is what ends them
			short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
			_, _ = w.Next(short)
			stop()
			if ctx.Err() != nil {
				t.Fatal("the connections of the boot stay")
			}
		}
	}
	if _, err := a.Store().Get(ctx, gossipKeyName); err != nil {
		t.Errorf("the control state by the connections that took their place: %v", err)
	}
}

// jobKey is the key of a job that is told from others by a letter.
func jobKey(letter string) string { return "job/t/job-" + strings.Repeat(letter, 16) }
