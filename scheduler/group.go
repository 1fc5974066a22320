package scheduler

import (
	"fmt"
	"slices"

	"github.com/wray-project/wray"
)

// Placement groups. A group belongs to the worker where it was made, its home,
// which reserves all its bundles or none, in two phases: it chooses nodes, takes
// its own part and asks each peer to hold its part; where all do, it tells them
// so, and otherwise has them let go. What is held and not heard of again expires.
// Every message may come twice.
//
// Peers that hold bundles, and those that submit tasks of a group of another's,
// keep a record of the same kind: where the bundles are. What runs in a bundle
// holds its room and nothing else.

// Nowhere is in place of a peer where a bundle is not placed.
const Nowhere = ^PeerID(0)

// HoldTime is how many nanoseconds a peer holds a bundle without being told that
// the group is there.
const HoldTime = 30_000_000_000

// NoteKind says what workers tell each other about a group.
type NoteKind uint8

// The kinds of notes.
const (
	// From the group's home:
	NotePrepare NoteKind = iota + 1 // hold Bundles
	NoteLayout                      // the bundles are At; what is held there is yours
	NoteRelease                     // let Bundles go, when nothing runs in them any more
	NoteGone                        // the group is no more: end what runs in it

	// To it:
	NotePrepared // Bundles are held
	NoteRefused  // they are not
	NoteLost     // Bundles are not held any more, or could not be held
	NoteAsk      // where are the bundles?
)

// GroupNote is what one worker tells another about a group. Round numbers the
// tries of its home to reserve it.
type GroupNote struct {
	Kind    NoteKind
	Group   wray.ID
	Job     wray.ID
	Round   uint64
	Bundles []int
	At      []PeerID        // where each bundle is; 0: here, Nowhere: not placed
	Spec    *wray.GroupSpec // with NotePrepare and NoteLayout. Not to be modified
}

// Group describes a group to AddGroup.
type Group struct {
	ID    wray.ID // unused so far
	Job   wray.ID
	Name  string
	Spec  *wray.GroupSpec // kept
	Value any             // the caller's own record: GroupReady and GroupEnded have it
}

type gangState uint8

const (
	gangWaits gangState = iota // some bundles are nowhere
	gangAsks                   // peers were asked to hold them
	gangReady
)

// gang is a placement group, at home or elsewhere.
type gang struct {
	id      wray.ID
	jobID   wray.ID
	job     *job   // nil elsewhere
	home    PeerID // 0: here
	name    string
	spec    *wray.GroupSpec // nil elsewhere, until the home has said
	bundles []bundle
	value   any
	over    *wray.Error // it is no more, for that reason

	state   gangState
	since   int64    // the time at which it came into that state
	until   int64    // it fails then, where no nodes could ever hold it; 0: some could
	ready   bool     // it was, once
	round   uint64   // of reserving
	waiting []PeerID // that were asked, and have not answered
	told    []PeerID // who knows where its bundles are
	heard   bool     // elsewhere: the home tells it of each change, or was asked to

	queue  queue // tasks that wait for room in it
	listed bool  // in gangs.hungry
	dirty  bool  // since the last time those were looked at there may be room
}

// bundle is where one of a group's bundles is.
type bundle struct {
	at    PeerID // 0: here
	room  *room  // nil where it is nowhere
	fresh bool   // of the round that goes on
	until int64  // elsewhere: held until then, unless the home says that it is there; 0: it has
}

// gangs is what the machine knows of placement groups.
type gangs struct {
	byID   map[wray.ID]*gang
	order  []*gang // oldest first
	rooms  []*room // here
	hungry []*gang // with a queue, some of them

	resuming int // attempts in rooms that want their CPU back

	pending int   // at home and not ready
	held    int   // bundles here that expire
	changed bool  // since the last try to reserve those that wait, something may have become free
	next    int64 // the earliest time of the next
	again   int64 // when to look again for those who wait for a peer that a job avoids; 0: no need
}

// AddGroup takes a placement group: GroupReady follows when all its bundles are
// reserved, and GroupEnded when it is no more. An error means that it was not
// taken.
func (s *Scheduler) AddGroup(now int64, x *Group) error {
	s.at(now)
	j := s.jobs[x.Job]
	switch {
	case x.ID.IsZero() || s.gangs.byID[x.ID] != nil:
		return named(x.Name, wray.Errorf(wray.CodeBadArgument, "group %v is zero or there already", x.ID))
	case j == nil:
		return named(x.Name, wray.Errorf(wray.CodeBadArgument, "job %v is not known", x.Job))
	case j.ending:
		return named(x.Name, wray.Errorf(wray.CodeCanceled, "its job has ended"))
	}
	if err := x.Spec.Check(); err != nil {
		return named(x.Name, wray.Errorf(wray.CodeBadArgument, "%v", err))
	}
	g := s.newGang(x.ID, x.Job)
	g.job, g.name, g.value = j, x.Name, x.Value
	g.describe(x.Spec)
	s.gangs.pending++
	s.gangs.changed = true
	return nil
}

func (s *Scheduler) newGang(id, job wray.ID) *gang {
	g := &gang{id: id, jobID: job, since: s.now}
	if s.gangs.byID == nil {
		s.gangs.byID = map[wray.ID]*gang{}
	}
	s.gangs.byID[id] = g
	s.gangs.order = append(s.gangs.order, g)
	return g
}

// describe gives g its bundles, which are nowhere.
func (g *gang) describe(spec *wray.GroupSpec) {
	g.spec = spec
	g.bundles = make([]bundle, len(spec.Bundles))
	for i := range g.bundles {
		g.bundles[i].at = Nowhere
	}
}

// RemoveGroup ends a group: what waits for it fails with GroupRemoved, what runs
// in it is stopped and fails likewise. One that is not known is left alone.
func (s *Scheduler) RemoveGroup(now int64, id wray.ID) {
	s.at(now)
	if g := s.gangs.byID[id]; g != nil && g.home == 0 {
		s.endGang(g, nil, true)
		s.settle()
	}
}

// ExpectGroup takes note of a group of another's, of which a task is to be
// submitted: its home is asked where it is. It does nothing where the group is
// known. False: its home is not.
func (s *Scheduler) ExpectGroup(now int64, id, job wray.ID, home PeerID) bool {
	s.at(now)
	g := s.gangs.byID[id]
	if g != nil && (g.home == 0 || g.heard) {
		return true
	}
	if s.peers.byID[home] == nil {
		return false
	}
	if g == nil {
		g = s.newGang(id, job)
		g.home = home
	}
	g.heard = true
	s.tellGang(g, home, GroupNote{Kind: NoteAsk})
	return true
}

// tellGang has a peer told something of g.
func (s *Scheduler) tellGang(g *gang, to PeerID, n GroupNote) {
	n.Group, n.Job = g.id, g.jobID
	if n.Kind == NotePrepare || n.Kind == NoteLayout {
		n.Spec = g.spec
	}
	if n.Kind == NoteLayout {
		n.At = make([]PeerID, len(g.bundles))
		for i := range g.bundles {
			if n.At[i] = g.bundles[i].at; g.bundles[i].fresh {
				n.At[i] = Nowhere // not yet
			}
		}
	}
	s.emit(Decision{Kind: TellGroup, Task: g.id, Job: g.jobID, Value: g.value, Peer: to, Note: &n})
}

// knows enters a peer into those that are told where g's bundles are.
func (g *gang) knows(p PeerID) {
	if !slices.Contains(g.told, p) {
		g.told = append(g.told, p)
	}
}

// become moves a gang that is at home.
func (s *Scheduler) become(g *gang, to gangState) {
	if g.state == to {
		return
	}
	if to == gangReady {
		s.gangs.pending--
	} else if g.state == gangReady {
		s.gangs.pending++
	}
	g.state, g.since = to, s.now
	s.gangs.changed = true
}

// reserve tries to reserve the groups that wait, in the order they came. The
// choice takes time in proportion to nodes and bundles; it is made again when
// something may have become free, and for a tenth of the time at most.
func (s *Scheduler) reserve() {
	gs := &s.gangs
	if gs.pending == 0 || !gs.changed || s.now < gs.next {
		return
	}
	gs.changed = false
	const perPiece = 100 // nanoseconds, about ten times what it takes
	var cost int64
	for i := 0; i < len(gs.order); i++ {
		g := gs.order[i]
		if g.home != 0 || g.state != gangWaits {
			continue
		}
		cost += perPiece * int64(len(g.bundles)) * int64(1+len(s.peers.all.list))
		if err := s.tryReserve(g); err != nil {
			s.endGang(g, err, true)
			i--
		}
	}
	if cost > 100*perPiece {
		gs.next = addSaturated(s.now, cost)
	}
}

// tryReserve places those of g's bundles that are nowhere, or none of them. An
// error: no nodes could ever hold them, and g waits for none.
func (s *Scheduler) tryReserve(g *gang) *wray.Error {
	lost := g.lost()
	sites, peers, nodes := s.sites(g, true)
	at := choose(g.spec.Strategy, sites, s.pieces(g, lost, nodes))
	if at == nil {
		if s.possible(g, lost) {
			g.until = 0
			return nil
		}
		if s.config.Patience == 0 {
			return s.noNodes(g)
		}
		if g.until == 0 {
			g.until = addSaturated(s.now, s.config.Patience)
		}
		return nil
	}
	g.until = 0
	g.round++
	g.waiting = g.waiting[:0]
	for k, i := range lost {
		b, p := &g.bundles[i], peers[at[k]]
		b.room, b.fresh, b.at = s.newRoom(g, i, p), true, 0
		if p != nil {
			b.at = p.id
			if !slices.Contains(g.waiting, p.id) {
				g.waiting = append(g.waiting, p.id)
			}
		}
	}
	if len(g.waiting) == 0 {
		s.reserved(g)
		return nil
	}
	s.become(g, gangAsks)
	for _, p := range g.waiting {
		s.tellGang(g, p, GroupNote{Kind: NotePrepare, Round: g.round, Bundles: g.freshAt(p)})
	}
	return nil
}

// lost returns g's bundles that are nowhere.
func (g *gang) lost() []int {
	var list []int
	for i := range g.bundles {
		if g.bundles[i].at == Nowhere {
			list = append(list, i)
		}
	}
	return list
}

// freshAt returns g's bundles of this round that are at a peer.
func (g *gang) freshAt(p PeerID) []int {
	var list []int
	for i := range g.bundles {
		if b := &g.bundles[i]; b.fresh && b.at == p {
			list = append(list, i)
		}
	}
	return list
}

// dimensions returns the custom resources that g's bundles ask for, each once.
func (g *gang) dimensions() []string {
	var names []string
	for i := range g.spec.Bundles {
		for _, c := range g.spec.Bundles[i].Custom {
			if !slices.Contains(names, c.Name) {
				names = append(names, c.Name)
			}
		}
	}
	return names
}

// sites returns this node and the peers that may be asked, nil in place of this
// one, as the choice sees them: with what is free now, or with all they have.
func (s *Scheduler) sites(g *gang, now bool) ([]site, []*peer, []*Node) {
	names := g.dimensions()
	index := map[PeerID]int{0: 0}
	here := site{free: make([]int64, 2+len(names))}
	res := s.config.Capacity
	if now {
		if res = s.free; s.resume.first != nil {
			res.CPU = 0
		}
	}
	here.free[0], here.free[1] = int64(res.CPU), res.Memory
	positions := make([]int, len(names))
	for d, name := range names {
		if positions[d] = s.resource(name); positions[d] >= 0 {
			c := &s.custom[positions[d]]
			if here.free[2+d] = int64(c.capacity); now {
				here.free[2+d] = int64(c.free)
			}
		}
	}
	sites, peers, nodes := []site{here}, []*peer{nil}, []*Node{&s.node}
	for _, m := range s.peers.all.list {
		p := m.peer
		if p.leaving || now && (p.unreachable || p.shut) {
			continue
		}
		st := site{free: make([]int64, 2+len(names))}
		res := p.node.Capacity
		if now {
			res = p.free()
		}
		st.free[0], st.free[1] = int64(res.CPU), res.Memory
		for d := range names {
			if a := p.account(positions[d]); a != nil {
				if st.free[2+d] = int64(a.capacity); now {
					st.free[2+d] = int64(a.capacity - a.others - a.loaned)
				}
			}
		}
		index[p.id] = len(sites)
		sites, peers, nodes = append(sites, st), append(peers, p), append(nodes, &p.node)
	}
	for i := range g.bundles {
		if k, known := index[g.bundles[i].at]; known {
			sites[k].held++
		}
	}
	if !now { // what is held by g itself is not free for the others
		for i := range g.bundles {
			if k, known := index[g.bundles[i].at]; known {
				for d, n := range g.need(i, names) {
					sites[k].free[d] -= n
				}
			}
		}
	}
	return sites, peers, nodes
}

// promised adds the nodes to sites that are promised, each as often as g may want
// it.
func (s *Scheduler) promised(g *gang, wanted int, sites []site, nodes []*Node) ([]site, []*Node) {
	names := g.dimensions()
	for i := range s.promises {
		n := &s.promises[i].Node
		free := make([]int64, 2+len(names))
		free[0], free[1] = int64(n.Capacity.CPU), n.Capacity.Memory
		for _, c := range n.Custom {
			if d := slices.Index(names, c.Name); d >= 0 {
				free[2+d] = int64(c.Amount)
			}
		}
		for range wanted {
			sites, nodes = append(sites, site{free: slices.Clone(free)}), append(nodes, n)
		}
	}
	return sites, nodes
}

// need is what bundle i asks for, by dimension.
func (g *gang) need(i int, names []string) []int64 {
	b := &g.spec.Bundles[i]
	need := make([]int64, 2+len(names))
	need[0], need[1] = int64(b.CPU), b.Memory
	for _, c := range b.Custom {
		need[2+slices.Index(names, c.Name)] = int64(c.Amount)
	}
	return need
}

// pieces are g's bundles of those numbers, as the choice sees them.
func (s *Scheduler) pieces(g *gang, numbers []int, nodes []*Node) []piece {
	names := g.dimensions()
	list := make([]piece, 0, len(numbers))
	for _, i := range numbers {
		p := piece{need: g.need(i, names)}
		if where := g.spec.Bundles[i].Where; len(where) > 0 {
			p.allowed = make([]bool, len(nodes))
			for k, n := range nodes {
				p.allowed[k] = n.has(where)
			}
		}
		list = append(list, p)
	}
	return list
}

// possible reports whether the nodes that are known, and those that are promised,
// could hold those bundles of g with nothing else to do.
func (s *Scheduler) possible(g *gang, lost []int) bool {
	sites, _, nodes := s.sites(g, false)
	if choose(g.spec.Strategy, sites, s.pieces(g, lost, nodes)) != nil {
		return true
	}
	if len(s.promises) == 0 {
		return false
	}
	sites, _, nodes = s.sites(g, false) // choose has changed them
	sites, nodes = s.promised(g, len(lost), sites, nodes)
	return choose(g.spec.Strategy, sites, s.pieces(g, lost, nodes)) != nil
}

// reserved is called when all bundles of g are held.
func (s *Scheduler) reserved(g *gang) {
	for i := range g.bundles {
		if b := &g.bundles[i]; b.fresh {
			b.fresh = false
			if b.at != 0 {
				g.knows(b.at)
			}
		}
	}
	s.become(g, gangReady)
	g.ready, g.dirty = true, true
	for _, p := range g.told {
		s.tellGang(g, p, GroupNote{Kind: NoteLayout, Round: g.round})
	}
	s.emit(Decision{Kind: GroupReady, Task: g.id, Job: g.jobID, Value: g.value})
}

// abort lets go of what the round that goes on has taken. except, which may be 0,
// is a peer that need not be told.
func (s *Scheduler) abort(g *gang, except PeerID) {
	if g.state != gangAsks {
		return
	}
	var asked []PeerID
	for i := range g.bundles {
		if b := &g.bundles[i]; b.fresh && b.at != 0 && b.at != except && !slices.Contains(asked, b.at) {
			asked = append(asked, b.at)
		}
	}
	for _, p := range asked {
		s.tellGang(g, p, GroupNote{Kind: NoteRelease, Round: g.round, Bundles: g.freshAt(p)})
	}
	for i := range g.bundles {
		if g.bundles[i].fresh {
			s.dropBundle(g, i)
		}
	}
	g.waiting = g.waiting[:0]
	s.become(g, gangWaits)
}

// dropBundle has bundle i be nowhere. What runs in it goes on.
func (s *Scheduler) dropBundle(g *gang, i int) {
	b := &g.bundles[i]
	if b.room != nil {
		s.close(b.room)
	}
	if b.until > 0 {
		s.gangs.held--
	}
	*b = bundle{at: Nowhere}
}

// endGang ends g for good. Where evict is set, what runs in it is ended, too; else
// it is being ended for another reason. settle must follow.
func (s *Scheduler) endGang(g *gang, err *wray.Error, evict bool) {
	why := err
	if why == nil {
		why = &wray.Error{Code: wray.CodeGroupRemoved, Message: "the placement group" + g.called() + " was removed",
			Hint: "remove a group when nothing runs in it any more"}
	}
	g.over = why
	delete(s.gangs.byID, g.id)
	s.gangs.order = slices.DeleteFunc(s.gangs.order, func(o *gang) bool { return o == g })
	if g.home == 0 && g.state != gangReady {
		s.gangs.pending--
	}
	for t := g.queue.first; t != nil; {
		next := t.next
		s.condemn(t, overOf(t, why))
		t = next
	}
	var peers []PeerID
	for i := range g.bundles {
		b := &g.bundles[i]
		if r := b.room; r != nil && evict {
			for t := r.first; t != nil; {
				next := t.after
				s.evict(t, why)
				t = next
			}
		}
		if g.home == 0 && b.at != 0 && b.at != Nowhere && !slices.Contains(peers, b.at) {
			peers = append(peers, b.at)
		}
		s.dropBundle(g, i)
	}
	if g.home != 0 {
		return
	}
	for _, p := range g.told {
		if !slices.Contains(peers, p) {
			peers = append(peers, p)
		}
	}
	for _, p := range peers {
		s.tellGang(g, p, GroupNote{Kind: NoteGone, Round: g.round})
	}
	s.emit(Decision{Kind: GroupEnded, Task: g.id, Job: g.jobID, Err: err, Value: g.value})
}

// called is g's name in a message, with a space before it.
func (g *gang) called() string {
	if g.name == "" {
		return ""
	}
	return fmt.Sprintf(" %q", g.name)
}

// overOf is the error of a task that was to run in a group which ended with err.
func overOf(t *task, err *wray.Error) *wray.Error {
	e := *err
	e.Task, e.Attempt = t.name, t.attempt
	return &e
}

// evict stops t, which runs in a group that is no more.
func (s *Scheduler) evict(t *task, why *wray.Error) {
	if t.stop == wray.CodeCanceled || t.stop == wray.CodeGroupRemoved {
		return
	}
	if t.stop == wray.CodeOK {
		s.stopTimer(t)
		s.emitStop(t, wray.CodeGroupRemoved)
	}
	t.stop, t.why = wray.CodeGroupRemoved, why.Message
	if p := t.peer(); p != nil && p.unreachable {
		s.condemn(t, t.blame(peerDied(t, p)))
	}
}

// endGangsOf ends the groups of a job that ends: its tasks are being canceled.
func (s *Scheduler) endGangsOf(job wray.ID) {
	for i := 0; i < len(s.gangs.order); {
		if g := s.gangs.order[i]; g.jobID == job {
			s.endGang(g, &wray.Error{Code: wray.CodeCanceled, Message: "its job ended"}, false)
			continue
		}
		i++
	}
}
