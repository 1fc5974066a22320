package durable_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/durable"
	"github.com/wray-project/wray/host/statelog"
	"github.com/wray-project/wray/host/statelog/statelogtest"
)

var (
	seed   = flag.Uint64("durable.seed", 0, "seed of the histories; 0: of the clock")
	rounds = flag.Int("durable.rounds", 400, "random histories")
)

// account is what an actor of these tests is.
type account struct {
	Money int
	Did   map[string]int // how often each job was done here
}

// job is what a call asks for: take Amount from here, and give it to those in
// To, all of them at once, each of which passes half of it on along Then.
type job struct {
	Name   string
	Amount int
	To     []int
	Then   []int
}

// world runs actors one after the other, on a disk whose power fails, as a
// worker does.
type world struct {
	t      testing.TB
	rng    *rand.Rand // of what is not the same again
	disk   *statelogtest.Disk
	files  [][2]*statelogtest.File
	actors []*actor
	wild   func() int // what a method looks at that it should not, or nil
}

type actor struct {
	w     *world
	index int
	rec   *durable.Record
	state account
}

const (
	actors = 4
	money  = 1000
)

func newWorld(t testing.TB, rng *rand.Rand) *world {
	w := &world{t: t, rng: rng, disk: &statelogtest.Disk{Rng: rng, Until: -1}}
	for range actors {
		w.files = append(w.files, [2]*statelogtest.File{w.disk.NewFile(), w.disk.NewFile()})
	}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	return w
}

// open opens all actors, in which order matters not, and makes those that are
// not there.
func (w *world) open() error {
	w.actors = nil
	for i := range w.files {
		log, err := statelog.Open([2]statelog.File{w.files[i][0], w.files[i][1]}, statelog.Identity{Name: fmt.Sprint(i)})
		if err != nil {
			return err
		}
		rec, err := durable.Open(log, durable.UID{byte(i)})
		if err != nil {
			return err
		}
		a := &actor{w: w, index: i, rec: rec}
		if rec.State() == nil {
			a.state = account{Money: money, Did: map[string]int{}}
			if err := rec.Commit(a.encoded(), nil, nil); err != nil {
				return err
			}
		}
		a.back()
		w.actors = append(w.actors, a)
	}
	return nil
}

func (a *actor) encoded() []byte {
	b, err := json.Marshal(a.state)
	if err != nil {
		panic(err)
	}
	return b
}

// back makes the actor what it was last.
func (a *actor) back() {
	a.state = account{}
	if err := json.Unmarshal(a.rec.State(), &a.state); err != nil {
		panic(err)
	}
}

// restart is what happens after the power failed.
func (w *world) restart(until int) error {
	w.disk = &statelogtest.Disk{Rng: w.rng, Until: until}
	for i := range w.files {
		w.files[i] = [2]*statelogtest.File{w.files[i][0].Restart(w.disk), w.files[i][1].Restart(w.disk)}
	}
	if err := w.open(); err != nil {
		return err
	}
	for _, i := range w.rng.Perm(len(w.actors)) {
		if err := w.actors[i].finish(); err != nil {
			return err
		}
	}
	return nil
}

// finish ends what a crash left undone.
func (a *actor) finish() error {
	body, q := a.rec.Unfinished()
	if body == nil {
		return nil
	}
	_, err := a.run(body, q)
	if errors.Is(err, wray.ErrDiverged) {
		return nil // told by the call's reply
	}
	return err
}

// call has the actor take a call.
func (a *actor) call(body []byte, q durable.Request) ([]byte, error) {
	if err := a.finish(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	copy(q.Digest[:], sum[:])
	reply, known, err := a.rec.Repeat(&q)
	if err != nil || known {
		return reply, err
	}
	return a.run(body, q)
}

// sent is an effect of the call that runs.
type sent struct {
	id   durable.ID
	to   *actor
	body []byte
}

func (a *actor) run(body []byte, q durable.Request) ([]byte, error) {
	r, w := a.rec, a.w
	var start durable.Start
	start.Seed[0] = byte(w.rng.Uint32())
	start, n := r.Begin(q, start)
	rng := rand.New(rand.NewPCG(uint64(start.Seed[0]), 0))
	var j job
	if err := json.Unmarshal(body, &j); err != nil {
		return nil, err
	}
	var asked []*actor
	var out []sent
	arrived := map[uint32][]byte{}
	effect := func(to *actor, j job) error {
		b, _ := json.Marshal(j)
		sum := sha256.Sum256(fmt.Append(b, to.index))
		d := durable.Digest(sum[:16])
		id, _, err := r.Effect(d)
		out = append(out, sent{id, to, b})
		return err
	}
	flush := func() error {
		if len(out) == 0 {
			return nil
		}
		if err := r.Persist(func() ([]byte, error) { return body, nil }); err != nil {
			return err
		}
		for _, s := range out {
			asked = append(asked, s.to)
			if r.Answered(s.id.Index) {
				continue
			}
			reply, err := s.to.call(s.body, durable.Request{ID: &s.id, Epoch: r.Log().Epoch()})
			if err != nil {
				return err
			}
			arrived[s.id.Index] = reply
		}
		out = nil
		return nil
	}
	wait := func() (string, error) {
		if err := flush(); err != nil {
			return "", err
		}
		o, err := r.Next()
		if err != nil {
			return "", err
		}
		if o == nil {
			var order []uint32
			for i := range arrived {
				order = append(order, i)
			}
			slices.Sort(order)
			i := order[w.rng.IntN(len(order))]
			o = &durable.Outcome{Kind: durable.Replied, Index: i, Reply: arrived[i]}
			r.Met(*o)
		}
		delete(arrived, o.Index)
		return string(o.Reply), nil
	}
	method := func() (string, error) {
		a.state.Did[j.Name]++
		if len(j.To) == 0 { // a deposit
			a.state.Money += j.Amount
			if len(j.Then) > 0 {
				half := j.Amount / 2
				a.state.Money -= half
				if err := effect(w.actors[j.Then[0]], job{Name: j.Name, Amount: half, Then: j.Then[1:]}); err != nil {
					return "", err
				}
				if rng.IntN(2) == 0 { // else it does not wait
					if _, err := wait(); err != nil {
						return "", err
					}
				}
			}
			return fmt.Sprint(a.index, " has it"), nil
		}
		// All at once, in an order and amounts that are drawn; then one more, to
		// whoever answered first.
		share := j.Amount / (len(j.To) + 1)
		for _, k := range rng.Perm(len(j.To)) {
			x := rng.IntN(share)
			if w.wild != nil {
				x = w.wild()
			}
			a.state.Money -= x
			if err := effect(w.actors[j.To[k]], job{Name: j.Name, Amount: x, Then: j.Then}); err != nil {
				return "", err
			}
		}
		var first int
		for k := range j.To {
			s, err := wait()
			if err != nil {
				return "", err
			}
			if k == 0 {
				fmt.Sscan(s, &first)
			}
		}
		a.state.Money -= share
		if err := effect(w.actors[first], job{Name: j.Name + " more", Amount: share}); err != nil {
			return "", err
		}
		s, err := wait()
		return s, err
	}
	reply, err := method()
	if err == nil {
		err = flush()
	}
	if err == nil {
		err = r.Ended()
	}
	if errors.Is(err, wray.ErrDiverged) {
		if e := r.Abort([]byte("diverged")); e != nil {
			return nil, e
		}
		a.back()
		return nil, err
	}
	if err != nil {
		a.back()
		return nil, err
	}
	if err := r.Commit(a.encoded(), nil, []byte(reply)); err != nil {
		return nil, err
	}
	for _, to := range asked {
		to.rec.Acknowledge(r.UID(), n)
	}
	return []byte(reply), nil
}

// drive makes the calls of jobs, from here, each until it is answered or the
// power fails too often; and has the power fail next after each of fails.
func (w *world) drive(jobs []job, from []int, fails []int) {
	if len(fails) > 0 {
		w.disk.Until, fails = fails[0], fails[1:]
	}
	for i := 0; i < len(jobs); {
		b, _ := json.Marshal(jobs[i])
		_, err := w.actors[from[i]].call(b, durable.Request{Key: jobs[i].Name})
		if err == nil {
			i++
			continue
		}
		for errors.Is(err, statelogtest.ErrPower) || errors.Is(err, statelog.ErrBroken) {
			until := -1
			if len(fails) > 0 {
				until, fails = fails[0], fails[1:]
			}
			err = w.restart(until)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// check checks that each job was done once wherever it was to be done.
func (w *world) check(what string, jobs []job, from []int) {
	w.t.Helper()
	total := 0
	want := make([]map[string]int, actors)
	for i := range want {
		want[i] = map[string]int{}
	}
	more := map[string]int{}
	for i, j := range jobs {
		want[from[i]][j.Name]++
		for _, to := range j.To {
			want[to][j.Name]++
			for _, then := range j.Then {
				want[then][j.Name]++
			}
		}
		more[j.Name+" more"] = 1
	}
	for i, a := range w.actors {
		total += a.state.Money
		for name, n := range a.state.Did {
			if _, ok := more[name]; ok {
				more[name] -= n
				continue
			}
			if n != want[i][name] {
				w.t.Fatalf("%s: actor %d did %q %d times, want %d", what, i, name, n, want[i][name])
			}
			delete(want[i], name)
		}
		if len(want[i]) > 0 {
			w.t.Fatalf("%s: actor %d did not do %v", what, i, want[i])
		}
	}
	for name, n := range more {
		if n != 0 {
			w.t.Fatalf("%s: %q was done %d times, not once", what, name, 1-n)
		}
	}
	if total != actors*money {
		w.t.Fatalf("%s: there is %d in all, want %d", what, total, actors*money)
	}
}

// some is a program with all that there is: effects at once, one after the
// other, of effects, and ones that nobody waits for.
func some() (jobs []job, from []int) {
	return []job{
		{Name: "a", Amount: 90, To: []int{1, 2}},
		{Name: "b", Amount: 80, To: []int{0}, Then: []int{3, 1}},
		{Name: "c", Amount: 70, To: []int{1, 3, 2}},
	}, []int{0, 2, 0}
}

// TestEveryInstruction has the power fail at each operation of the disk in turn,
// and then, for each, at each operation of what follows.
func TestEveryInstruction(t *testing.T) {
	jobs, from := some()
	steps := func(fails ...int) (left int) {
		w := newWorld(t, rand.New(rand.NewPCG(7, uint64(len(fails)))))
		w.drive(jobs, from, append(slices.Clone(fails), 1<<20))
		w.check(fmt.Sprintf("the power fails after %v operations", fails), jobs, from)
		return w.disk.Until
	}
	n, second := 0, 4 // every how many
	if testing.Short() {
		second = 32
	}
	for k := 0; ; k++ {
		if steps(k) < 0 {
			t.Fatal("it fails for ever")
		}
		for j := k % second; j < 200; j += second {
			steps(k, j)
			n++
		}
		w := newWorld(t, rand.New(rand.NewPCG(7, 1)))
		w.drive(jobs, from, []int{k})
		if !w.disk.Off && w.disk.Until >= 0 {
			t.Logf("%d operations, %d pairs", k, n)
			return
		}
	}
}

// TestHistories runs random programs with the power failing at random.
func TestHistories(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("go test ./host/durable -run TestHistories -durable.seed %d", s)
	crashes := 0
	for round := range *rounds {
		rng := rand.New(rand.NewPCG(s, uint64(round)))
		var jobs []job
		var from, fails []int
		for i := range 1 + rng.IntN(12) {
			p := rng.Perm(actors)
			j := job{Name: fmt.Sprint("job ", i), Amount: 20 + rng.IntN(100), To: p[1 : 2+rng.IntN(3)]}
			if len(j.To) == 1 {
				j.Then = p[2 : 2+rng.IntN(3)]
			}
			jobs, from = append(jobs, j), append(from, p[0])
		}
		for range rng.IntN(15) {
			fails = append(fails, rng.IntN(90))
		}
		crashes += len(fails)
		w := newWorld(t, rng)
		w.drive(jobs, from, fails)
		w.check(fmt.Sprintf("round %d, failing %v", round, fails), jobs, from)
	}
	t.Logf("%d crashes", crashes)
}

// TestDiverged has a method look at what is not the same after a crash: its call
// fails and says so, and whatever it had done is done once.
func TestDiverged(t *testing.T) {
	jobs, _ := some()
	jobs = jobs[:1]
	told := 0
	for k := range 60 {
		x := 0
		w := newWorld(t, rand.New(rand.NewPCG(7, 1)))
		w.wild = func() int { x++; return x }
		b, _ := json.Marshal(jobs[0])
		w.disk.Until = k
		_, err := w.actors[0].call(b, durable.Request{Key: "a"})
		if err == nil {
			continue
		}
		if err := w.restart(-1); err != nil {
			t.Fatal(err)
		}
		for _, a := range w.actors {
			for name, n := range a.state.Did {
				if n != 1 {
					t.Fatalf("after %d operations actor %d did %q %d times", k, a.index, name, n)
				}
			}
		}
		reply, err := w.actors[0].call(b, durable.Request{Key: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if string(reply) == "diverged" {
			told++
		}
	}
	if told < 5 {
		t.Fatalf("told %d times", told)
	}
}

// TestKeys keeps the latest keys, through generations of the log, and no more.
func TestKeys(t *testing.T) {
	w := newWorld(t, rand.New(rand.NewPCG(1, 1)))
	a := w.actors[0]
	call := func(i int) string {
		b, _ := json.Marshal(job{Name: fmt.Sprint(i), Amount: 1})
		r, err := a.call(b, durable.Request{Key: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		return string(r)
	}
	n := durable.MaxKeys + 10
	for i := range n {
		call(i)
	}
	before := a.state.Money
	for i := 10; i < n; i += 97 {
		call(i)
	}
	if a.state.Money != before {
		t.Fatal("a call was repeated whose key is remembered")
	}
	if err := w.restart(-1); err != nil {
		t.Fatal(err)
	}
	a = w.actors[0]
	for i := 10; i < n; i += 97 {
		call(i)
	}
	if a.state.Money != before {
		t.Fatal("a call was repeated whose key was remembered before a restart")
	}
	if call(5); a.state.Money != before+1 {
		t.Fatal("more keys are remembered than are to be")
	}
	other, _ := json.Marshal(job{Name: "100", Amount: 2})
	if _, err := a.call(other, durable.Request{Key: "100"}); !errors.Is(err, wray.ErrBadArgument) {
		t.Fatalf("a key was used for two calls: %v", err)
	}
	if n := len(slices.Collect(a.rec.Log().Kept)); n != durable.MaxKeys {
		t.Fatalf("%d replies are kept", n)
	}
}
