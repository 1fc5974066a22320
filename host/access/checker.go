package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wray-project/wray/host/control"
)

// Checker knows whose a token is, by what it follows of the control state: no
// check asks anybody. Before it has read that, and as long as it could not, no
// token is good; while the control state is away later, what it was last counts,
// for MaxStale: somebody may have lost his token meanwhile.
// Its methods may be called by any number of goroutines.
type Checker struct {
	store control.Store
	now   func() time.Time
	login func(p Principal, from string)
	stop  context.CancelFunc
	wg    sync.WaitGroup
	ready chan struct{} // closed when all was read once

	mu     sync.RWMutex
	stale  map[string]bool              // guarded by mu; prefixes of which too long nothing was heard
	again  map[string]func()            // guarded by mu; have a prefix be read again
	read   map[string]time.Time         // guarded by mu; when a prefix was last read
	homes  map[string]home              // guarded by mu; the tenants, by name
	users  map[string]user              // guarded by mu; by tenant/name
	tokens map[string]*known            // guarded by mu; by ID
	held   map[string]map[*holding]bool // guarded by mu; by ID
}

// home is a tenant as it is now.
type home struct {
	born   control.Revision // another of the name has another
	paused bool             // it takes nothing new
}

// user is a user as it is now.
type user struct {
	rec  UserRecord
	born control.Revision // another of the name has another
}

// known is a token and when it was last shown here.
type known struct {
	tenant string
	rec    TokenRecord
	born   control.Revision
	role   Role         // of the record; Admin where it has none
	used   atomic.Int64 // Unix milliseconds
}

// holding is something that goes on as long as a token is good.
type holding struct {
	as     Principal
	cancel context.CancelFunc
	timer  *time.Timer
}

// CheckerOptions are a checker's; the zero one works.
type CheckerOptions struct {
	Now func() time.Time // nil is time.Now
	// Login is told of a token, and of the address, where it is used here after it was not for loginAfter.
	// It may be nil.
	Login func(p Principal, from string)
}

// loginAfter is how long a token is not used before its next use is news.
const loginAfter = time.Hour

// NewChecker begins to follow the users and tokens of a store.
func NewChecker(store control.Store, o CheckerOptions) *Checker {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Login == nil {
		o.Login = func(Principal, string) {}
	}
	c := &Checker{store: store, now: o.Now, login: o.Login, ready: make(chan struct{}), stale: map[string]bool{}, again: map[string]func(){}, read: map[string]time.Time{}, homes: map[string]home{}, users: map[string]user{}, tokens: map[string]*known{}, held: map[string]map[*holding]bool{}}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	var all sync.WaitGroup
	all.Add(3)
	c.wg.Go(func() {
		c.follow(ctx, control.KindTenant+"/", c.resetTenants, c.applyTenant, sync.OnceFunc(all.Done))
	})
	c.wg.Go(func() { c.follow(ctx, KindUser+"/", c.resetUsers, c.applyUser, sync.OnceFunc(all.Done)) })
	c.wg.Go(func() { c.follow(ctx, KindToken+"/", c.resetTokens, c.applyToken, sync.OnceFunc(all.Done)) })
	c.wg.Go(func() { all.Wait(); close(c.ready) })
	c.wg.Go(func() { c.listen(ctx) })
	return c
}

// Ready is closed when tenants, users and tokens were read for the first time, or at Close.
func (c *Checker) Ready() <-chan struct{} { return c.ready }

// Close ends what NewChecker began, and all that is held. It may be called more
// than once.
func (c *Checker) Close() error {
	c.stop()
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, held := range c.held {
		for h := range held {
			c.cutLocked(id, h)
		}
	}
	return nil
}

// retry is how long to wait before a control state that did not answer is asked
// again.
const retry = 200 * time.Millisecond

// follow has reset called with all records under a prefix, and apply with what
// becomes of them, until ctx ends.
func (c *Checker) follow(ctx context.Context, prefix string, reset func([]control.Record), apply func(control.Event), read func()) {
	defer read()
	for ctx.Err() == nil {
		records, from, err := list(ctx, c.store, prefix)
		var w control.Watcher
		if err == nil {
			w, err = c.store.Watch(ctx, prefix, from+1)
		}
		watching, again := context.WithCancel(ctx)
		if errors.Is(err, control.ErrClosed) {
			again()
			return
		}
		if err != nil { // also where a head of an older version denies it
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
			again()
			continue
		}
		reset(records)
		c.current(prefix, again)
		read()
		for err == nil || errors.Is(err, control.ErrUnavailable) && watching.Err() == nil {
			var b control.Batch
			b, err = w.Next(watching)
			for _, e := range b.Events {
				apply(e)
			}
		}
		again()
		w.Close()
		if errors.Is(err, control.ErrClosed) {
			return
		}
	}
}

// list reads all records under a prefix, of one state.
func list(ctx context.Context, s control.Store, prefix string) (all []control.Record, at control.Revision, err error) {
	req := control.ListRequest{Prefix: prefix}
	for {
		p, err := s.List(ctx, req)
		if err != nil {
			return nil, 0, err
		}
		req.At = p.Revision
		all = append(all, p.Records...)
		if !p.More {
			return all, p.Revision, nil
		}
		req.After = p.Records[len(p.Records)-1].Key
	}
}

func (c *Checker) resetTenants(records []control.Record) {
	homes := map[string]home{}
	for _, r := range records {
		if e, err := control.Tenants(c.store).Decode(r); err == nil {
			homes[e.Name] = home{r.Created, e.Value.Disabled}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.homes = homes
	c.cutStaleLocked()
}

func (c *Checker) applyTenant(ev control.Event) {
	_, _, name, err := control.SplitKey(ev.Record.Key)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.homes, name)
	if !ev.Deleted {
		if e, err := control.Tenants(c.store).Decode(ev.Record); err == nil {
			c.homes[name] = home{ev.Record.Created, e.Value.Disabled}
		}
	}
	c.cutStaleLocked()
}

func (c *Checker) resetUsers(records []control.Record) {
	users := map[string]user{}
	for _, r := range records {
		if e, err := Users(c.store).Decode(r); err == nil { // what does not decode is no user
			users[e.Tenant+"/"+e.Name] = user{e.Value, r.Created}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users = users
	c.cutStaleLocked()
}

func (c *Checker) applyUser(ev control.Event) {
	_, tenant, name, err := control.SplitKey(ev.Record.Key)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.users, tenant+"/"+name)
	if !ev.Deleted {
		if e, err := Users(c.store).Decode(ev.Record); err == nil {
			c.users[tenant+"/"+name] = user{e.Value, ev.Record.Created}
		}
	}
	c.cutStaleLocked()
}

func (c *Checker) resetTokens(records []control.Record) {
	tokens := map[string]*known{}
	for _, r := range records {
		if k, id := c.decode(r); k != nil {
			tokens[id] = k
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, k := range tokens {
		if old := c.tokens[id]; old != nil {
			k.used.Store(old.used.Load())
		}
	}
	c.tokens = tokens
	c.cutStaleLocked()
}

func (c *Checker) applyToken(ev control.Event) {
	_, _, id, err := control.SplitKey(ev.Record.Key)
	if err != nil {
		return
	}
	var k *known
	if !ev.Deleted {
		k, _ = c.decode(ev.Record)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.tokens[id]
	if k == nil {
		delete(c.tokens, id)
	} else {
		if old != nil {
			k.used.Store(old.used.Load())
		}
		c.tokens[id] = k
	}
	c.cutStaleLocked()
}

func (c *Checker) decode(r control.Record) (*known, string) {
	e, err := Tokens(c.store).Decode(r)
	if err != nil {
		return nil, ""
	}
	k := &known{tenant: e.Tenant, rec: e.Value, born: r.Created, role: Admin}
	if e.Value.Role != "" {
		if k.role, err = ParseRole(e.Value.Role); err != nil {
			return nil, "" // of a newer version, perhaps: it may do what is not known here
		}
	}
	k.used.Store(e.Value.Used)
	return k, e.Name
}

// Verify returns who shows a token, or an error that matches ErrUnknown and does
// not tell why.
func (c *Checker) Verify(text string) (Principal, error) { return c.verifyFrom(text, "") }

// verifyFrom is Verify of a token that comes from an address.
func (c *Checker) verifyFrom(text, from string) (Principal, error) {
	s, err := ParseSecret(text)
	if err != nil {
		return Principal{}, ErrUnknown
	}
	p, news, err := c.verify(s)
	if news {
		c.login(p, from)
	}
	return p, err
}

// verify is Verify, and reports whether it is news that the token is used.
func (c *Checker) verify(s Secret) (p Principal, news bool, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	k := c.tokens[s.id]
	if k == nil {
		var none [sha256.Size]byte
		_ = s.is(none[:]) // as long as it takes for one that is there
		return Principal{}, false, ErrUnknown
	}
	if !s.is(k.rec.Hash) {
		return Principal{}, false, ErrUnknown
	}
	p, ok := c.principalLocked(s.id, k)
	if !ok {
		return Principal{}, false, ErrUnknown
	}
	now := c.now().UnixMilli()
	return p, now-k.used.Swap(now) > loginAfter.Milliseconds(), nil
}

// principalLocked is whose a token is; false for one that is no good now. A token
// is of a tenant and of a user that were made before it: those that were made
// later under the same names are others, whatever was left of the first.
func (c *Checker) principalLocked(id string, k *known) (Principal, bool) {
	if len(c.stale) > 0 {
		return Principal{}, false
	}
	t, stands := c.homes[k.tenant]
	u, there := c.users[k.tenant+"/"+k.rec.User]
	if k.tenant != Home && (!stands || t.born > u.born) {
		return Principal{}, false
	}
	role, err := ParseRole(u.rec.Role)
	if !there || u.rec.Disabled || err != nil || c.now().UnixMilli() >= k.rec.Expires || u.born > k.born {
		return Principal{}, false
	}
	p := Principal{Kind: User, Tenant: k.tenant, Name: k.rec.User, Role: min(role, k.role), Token: id, Paused: t.paused}
	if u.rec.Service {
		p.Kind = Service
	}
	return p, true
}

// Bearer is Verify of the value of an Authorization header.
func (c *Checker) Bearer(header, from string) (Principal, error) {
	scheme, token, _ := strings.Cut(header, " ")
	if c == nil || !strings.EqualFold(scheme, "bearer") {
		return Principal{}, ErrUnknown
	}
	return c.verifyFrom(strings.TrimSpace(token), from)
}

// Hold returns a context that ends when p's token is good no more: revoked,
// expired, or its user changed. Principals of another kind are held as long as
// ctx. The caller calls release.
func (c *Checker) Hold(ctx context.Context, p Principal) (_ context.Context, release context.CancelFunc) {
	if c == nil || p.Token == "" {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	h := &holding{as: p, cancel: cancel}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.tokens[p.Token]
	if k == nil {
		cancel()
		return ctx, cancel
	}
	if now, ok := c.principalLocked(p.Token, k); !ok || !same(now, p) {
		cancel()
		return ctx, cancel
	}
	h.timer = time.AfterFunc(time.UnixMilli(k.rec.Expires).Sub(c.now()), cancel)
	if c.held[p.Token] == nil {
		c.held[p.Token] = map[*holding]bool{}
	}
	c.held[p.Token][h] = true
	return ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cutLocked(p.Token, h)
	}
}

// cutStaleLocked ends what is held for somebody who may not do now what it could
// when it began.
func (c *Checker) cutStaleLocked() {
	for id, held := range c.held {
		now := Principal{}
		if k := c.tokens[id]; k != nil {
			now, _ = c.principalLocked(id, k)
		}
		for h := range held {
			if !same(h.as, now) {
				c.cutLocked(id, h)
			}
		}
	}
}

// same reports whether what one may go on with the other may. What runs of a
// tenant that is disabled goes on.
func same(a, b Principal) bool {
	a.Paused = b.Paused
	return a == b
}

func (c *Checker) cutLocked(id string, h *holding) {
	h.timer.Stop()
	h.cancel()
	if delete(c.held[id], h); len(c.held[id]) == 0 {
		delete(c.held, id)
	}
}

// noteEvery is how exactly the last use of a token is kept.
const noteEvery = time.Minute

// NoteUse writes when tokens were last shown here, those whose last use is more
// than a minute after what is kept. It is for heads: other nodes may not write.
func (c *Checker) NoteUse(ctx context.Context) error {
	type use struct {
		tenant, id string
		at         int64
	}
	var late []use
	c.mu.RLock()
	for id, k := range c.tokens {
		if at := k.used.Load(); at > k.rec.Used+noteEvery.Milliseconds() {
			late = append(late, use{k.tenant, id, at})
		}
	}
	c.mu.RUnlock()
	for _, u := range late {
		_, err := Tokens(c.store).Modify(ctx, u.tenant, u.id, func(t *TokenRecord) error {
			t.Used = max(t.Used, u.at)
			return nil
		})
		if err != nil && !errors.Is(err, control.ErrNotFound) && !errors.Is(err, control.ErrNewer) {
			return fmt.Errorf("note when tokens were used: %w", err)
		}
	}
	return nil
}

// Run writes when tokens were used, and removes those that expired long ago,
// until ctx ends: on heads.
func (c *Checker) Run(ctx context.Context, p *People) {
	t := time.NewTicker(noteEvery)
	defer t.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		_ = c.NoteUse(ctx) // or a minute later
		if n%60 == 0 {
			_ = p.Prune(ctx)
		}
	}
}
