package scheduler

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/wray-project/wray"
)

// TestScripts runs testdata: the behaviour of the scheduler, to be read. After
// a wanted change run
//
//	go test ./scheduler -run TestScripts -rewrite
//
// and read the diff: commit it only when you understand each line.
//
// Every command is an event, followed by Ready; the output is the decisions.
// Names stand for IDs. Unless it says otherwise a task asks for one CPU and no
// memory and makes one object, which has the task's name.
//
//	node cpu=2 memory=100MiB [custom=(NAME:AMOUNT,…)] [max-queued=n] [max-bytes=n] [max-depth=n] [name=] [labels=(KEY:VALUE,…)]
//	job NAME …                   AddJob
//	submit JOB TASK … [cpu=] [memory=] [custom=] [deps=(OBJECT,…)] [results=(OBJECT,…)]
//	       [parent=TASK] [retries=] [timeout=] [bytes=] [rerun]
//	       [spread | on=NODE [soft]] [labels=(KEY:VALUE,…)] [home] [near=(PEER:BYTES,…)]
//	finish TASK … [error=CODE] [retryable] [attempt=]
//	block TASK … [on=(OBJECT,…)] [all] [space]
//	unblock TASK …
//	ready OBJECT …               ObjectReady
//	at PEER OBJECT … bytes=      ObjectAt
//	peer PEER … cpu= memory= [custom=] [labels=]   PeerUp; its node has its name
//	promise KIND … cpu= memory= [custom=] [labels=]  Promised, of those alike; none: nothing is promised any more
//	demands [most=n]                               Demands, and Room
//	load PEER … [cpu=] [memory=] [custom=]         PeerLoad
//	unreachable PEER …           PeerUnreachable
//	leaves PEER …                PeerLeaves
//	down PEER …                  PeerDown
//	refuse TASK … [home | not-now] [error=CODE]    Refused
//	explain TASK …               Explain
//	fail OBJECT … error=CODE     ObjectFailed
//	waits [job=JOB] [name=TASK] [most=n]           Waits
//	cancel TASK … [alone]        recursive unless alone
//	end JOB …                    EndJob
//	tick DURATION                the clock advances, Tick
//	wait DURATION                the clock advances
//	deadline                     NextDeadline, from now
//	stats [JOB]
//	tasks                        the state of every task not done
//	repeat n=                    the lines below, % standing for 1 to n, each followed by Ready; the output is counted
//	batch                        the lines below, followed by one Ready
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if strings.Contains(path, "fuzz") {
			t.Skip("SKIP: not a script")
		}
		v := &env{t: t, ids: map[string]wray.ID{}, names: map[wray.ID]string{}, attempts: map[wray.ID]int{}}
		datadriven.RunTest(t, path, v.run)
	})
}

// env is a scheduler whose tasks, objects and jobs have names.
type env struct {
	t        *testing.T
	s        *Scheduler
	now      int64
	ids      map[string]wray.ID
	names    map[wray.ID]string
	attempts map[wray.ID]int
	seq      uint64
	out      strings.Builder
}

// Kinds of names, in the Owner of their IDs.
const (
	aJob = iota + 1
	aTask
	anObject
	aPeer
	aGroup
)

func (v *env) id(kind uint64, name string) wray.ID {
	key := fmt.Sprint(kind, name)
	if id, ok := v.ids[key]; ok {
		return id
	}
	id := wray.ID{Owner: kind, Seq: uint64(len(v.ids) + 1)}
	v.ids[key], v.names[id] = id, name
	return id
}

func (v *env) run(t *testing.T, d *datadriven.TestData) string {
	v.out.Reset()
	switch d.Cmd {
	case "batch":
		for line := range strings.Lines(d.Input) {
			v.line(line)
		}
		v.decisions()
	case "repeat":
		var n int
		d.ScanArgs(t, "n", &n)
		counts := map[string]int{}
		var kinds []string
		for i := range n {
			for line := range strings.Lines(d.Input) {
				v.out.Reset()
				v.line(strings.ReplaceAll(line, "%", strconv.Itoa(i+1)))
				v.decisions()
				for o := range strings.Lines(v.out.String()) {
					kind, _, _ := strings.Cut(o, " ")
					if counts[kind]++; counts[kind] == 1 {
						kinds = append(kinds, kind)
					}
				}
			}
		}
		v.out.Reset()
		for _, k := range kinds {
			fmt.Fprintf(&v.out, "%d times %s\n", counts[k], k)
		}
	default:
		v.event(d.Cmd, d.CmdArgs)
		if v.s != nil {
			v.decisions()
		}
	}
	if v.out.Len() == 0 {
		return "ok\n"
	}
	out := v.out.String()
	for id, name := range v.names {
		out = strings.ReplaceAll(out, id.String(), name)
	}
	return out
}

func (v *env) line(line string) {
	cmd, args, err := datadriven.ParseLine(line)
	if err != nil {
		v.t.Fatal(err)
	}
	v.event(cmd, args)
}

// decisions takes what Ready has and prints it.
func (v *env) decisions() {
	for _, d := range v.s.Ready(nil) {
		if v.seq++; d.Seq != v.seq {
			v.t.Fatalf("decision %d has Seq %d", v.seq, d.Seq)
		}
		switch d.Kind {
		case Start:
			v.attempts[d.Task] = d.Attempt
			fmt.Fprintf(&v.out, "start %s #%d\n", v.names[d.Task], d.Attempt)
		case Stop:
			fmt.Fprintf(&v.out, "stop %s #%d%s: %v\n", v.names[d.Task], d.Attempt, v.peerName(" at ", d.Peer), d.Code)
		case Lend:
			v.attempts[d.Task] = d.Attempt
			fmt.Fprintf(&v.out, "lend %s #%d%s\n", v.names[d.Task], d.Attempt, v.peerName(" to ", d.Peer))
		case Resume:
			fmt.Fprintf(&v.out, "resume %s\n", v.names[d.Task])
		case Done:
			fmt.Fprintf(&v.out, "done %s", v.names[d.Task])
			if d.Err != nil {
				fmt.Fprintf(&v.out, ": %v", d.Err)
				v.hint(d.Err)
			}
			fmt.Fprintln(&v.out)
		case Space:
			fmt.Fprintf(&v.out, "space %s\n", v.names[d.Job])
		case JobEnded:
			fmt.Fprintf(&v.out, "ended %s: %s\n", v.names[d.Job], statsString(*d.Stats))
		default:
			v.groupDecision(&d)
		}
	}
	if err := v.s.check(); err != nil {
		v.t.Fatal(err)
	}
	if err := v.s.checkIdle(); err != nil {
		v.t.Fatal(err)
	}
}

func (v *env) peer(name string) PeerID { return PeerID(v.id(aPeer, name).Seq) }

func (v *env) peerName(before string, p PeerID) string {
	if p == 0 {
		return ""
	}
	return before + v.names[wray.ID{Owner: aPeer, Seq: uint64(p)}]
}

func (v *env) hint(e *wray.Error) {
	if e.Hint != "" {
		fmt.Fprintf(&v.out, "\n    hint: %s", e.Hint)
	}
}

func statsString(a Stats) string {
	return fmt.Sprintf("submitted=%d finished=%d failed=%d canceled=%d retried=%d refused=%d stale=%d "+
		"waiting=%d running=%d blocked=%d cpu=%v memory=%s cputime=%v queued=%d",
		a.Submitted, a.Finished, a.Failed, a.Canceled, a.Retried, a.Refused, a.Stale,
		a.Waiting, a.Running, a.Blocked, a.Held.CPU, size(a.Held.Memory), time.Duration(a.CPUTime), a.QueuedBytes) + lentString(a.Lent) + customString(a.Custom)
}

func customString(list []wray.Custom) string {
	out := ""
	for _, c := range list {
		out += fmt.Sprintf(" %s=%v", c.Name, c.Amount)
	}
	return out
}

// event does one line of a script.
func (v *env) event(cmd string, args []datadriven.CmdArg) {
	a := arguments{v: v, opts: map[string][]string{}}
	for _, arg := range args {
		if len(arg.Vals) == 0 {
			a.names = append(a.names, arg.Key)
			a.opts[arg.Key] = nil
		} else {
			a.opts[arg.Key] = arg.Vals
		}
	}
	if cmd != "node" {
		stale := v.s.stale
		defer func() {
			if v.s.stale != stale {
				fmt.Fprintf(&v.out, "(stale: %s)\n", cmd)
			}
			if err := v.s.check(); err != nil {
				v.t.Fatalf("after %s: %v", cmd, err)
			}
		}()
	}
	switch cmd {
	case "node":
		s, err := New(Config{
			Capacity:       wray.Resources{CPU: a.cpu("cpu"), Memory: a.bytes("memory")},
			Custom:         a.custom(),
			MaxQueuedTasks: int(a.int("max-queued", 0)),
			MaxQueuedBytes: a.bytes("max-bytes"),
			MaxDepth:       int(a.int("max-depth", 0)),
			Node:           a.text("name"),
			Labels:         a.labels(),
			Patience:       a.int("patience", 0),
		})
		if err != nil {
			v.t.Fatal(err)
		}
		v.s, v.now, v.seq = s, 0, 0
	case "job":
		for _, n := range a.names {
			if err := v.s.AddJob(v.now, v.id(aJob, n)); err != nil {
				fmt.Fprintf(&v.out, "%s refused: %v\n", n, err)
			}
		}
	case "submit":
		b := a
		b.names = nil
		for _, n := range a.names[1:] {
			if n != "soft" && n != "spread" && n != "home" && n != "rerun" {
				b.names = append(b.names, n)
			}
		}
		for _, n := range b.names {
			v.submit(a, n)
		}
	case "finish":
		var o Outcome
		if a.has("error") {
			o.Err = a.error("error")
		}
		o.Retryable = a.flag("retryable")
		for _, n := range a.names {
			id := v.id(aTask, n)
			v.s.Finished(v.now, id, a.attempt(id), o)
		}
	case "anew":
		for _, n := range a.names {
			id := v.id(aTask, n)
			v.s.Anew(v.now, id, a.attempt(id))
		}
	case "block":
		w := Wait{All: a.flag("all"), Space: a.flag("space"), Objects: a.ids(anObject, "on")}
		for _, n := range a.names {
			id := v.id(aTask, n)
			v.s.Blocked(v.now, id, a.attempt(id), w)
		}
	case "unblock":
		for _, n := range a.names {
			id := v.id(aTask, n)
			v.s.Unblocked(v.now, id, a.attempt(id))
		}
	case "ready":
		for _, n := range a.names {
			v.s.ObjectReady(v.now, v.id(anObject, n))
		}
	case "fail":
		for _, n := range a.names {
			v.s.ObjectFailed(v.now, v.id(anObject, n), a.error("error"))
		}
	case "at":
		for _, n := range a.names[1:] {
			v.s.ObjectAt(v.now, v.id(anObject, n), v.peer(a.names[0]), a.bytes("bytes"))
		}
	case "peer":
		for _, n := range a.names {
			node := Node{Name: n, Capacity: wray.Resources{CPU: a.cpu("cpu"), Memory: a.bytes("memory")}, Custom: a.custom(), Labels: a.labels()}
			if err := v.s.PeerUp(v.now, v.peer(n), node); err != nil {
				fmt.Fprintf(&v.out, "%s refused: %v\n", n, err)
			}
		}
	case "coming":
		for _, n := range a.names {
			v.s.Coming(v.now, n)
		}
	case "comesnot":
		for _, n := range a.names {
			v.s.ComesNot(v.now, n)
		}
	case "promise":
		var list []Promise
		for _, n := range a.names {
			list = append(list, Promise{Node{Name: n, Capacity: wray.Resources{CPU: a.cpu("cpu"), Memory: a.bytes("memory")}, Custom: a.custom(), Labels: a.labels()}})
		}
		if err := v.s.Promised(v.now, list); err != nil {
			fmt.Fprintf(&v.out, "refused: %v\n", err)
		}
	case "demands":
		for _, d := range v.s.Demands(int(a.int("most", 100))) {
			fmt.Fprintf(&v.out, "%dx cpu=%v memory=%v", d.Count, d.Resources.CPU, d.Resources.Memory)
			for _, c := range d.Custom {
				fmt.Fprintf(&v.out, " %s=%v", c.Name, c.Amount)
			}
			if d.Strategy.Node != "" {
				fmt.Fprintf(&v.out, " on %s", d.Strategy.Node)
			}
			for _, w := range d.Strategy.Where {
				fmt.Fprintf(&v.out, " %v", w)
			}
			fmt.Fprintln(&v.out)
		}
		free, custom, tasks := v.s.Room()
		fmt.Fprintf(&v.out, "free: cpu=%v memory=%v", free.CPU, free.Memory)
		for _, c := range custom {
			fmt.Fprintf(&v.out, " %s=%v", c.Name, c.Amount)
		}
		fmt.Fprintf(&v.out, ", %d tasks are here\n", tasks)
	case "load":
		load := Load{Held: wray.Resources{Memory: a.bytes("memory")}, Custom: a.custom()}
		if a.has("cpu") {
			load.Held.CPU = a.cpu("cpu")
		}
		for _, n := range a.names {
			v.s.PeerLoad(v.now, v.peer(n), load)
		}
	case "unreachable":
		for _, n := range a.names {
			v.s.PeerUnreachable(v.now, v.peer(n))
		}
	case "leaves":
		for _, n := range a.names {
			v.s.PeerLeaves(v.now, v.peer(n))
		}
	case "down":
		for _, n := range a.names {
			v.s.PeerDown(v.now, v.peer(n))
		}
	case "refuse":
		why := NoRoom
		var refusal *wray.Error
		if a.has("error") {
			refusal = a.error("error")
		}
		if a.flag("home") {
			why = OnlyHere
		} else if a.flag("not-now") {
			why = NotNow
		}
		for _, n := range a.names {
			id := v.id(aTask, n)
			v.s.Refused(v.now, id, a.attempt(id), why, refusal)
		}
	case "explain":
		for _, n := range a.names {
			v.explain(n)
		}
	case "waits":
		v.waits(a)
	case "cancel":
		alone := a.flag("alone")
		for _, n := range a.names {
			v.s.Cancel(v.now, v.id(aTask, n), !alone)
		}
	case "end":
		for _, n := range a.names {
			v.s.EndJob(v.now, v.id(aJob, n))
		}
	case "tick", "wait":
		d, err := time.ParseDuration(a.names[0])
		if err != nil {
			v.t.Fatal(err)
		}
		v.now += int64(d)
		if cmd == "tick" {
			v.s.Tick(v.now)
		}
	case "deadline":
		if at, ok := v.s.NextDeadline(); ok {
			fmt.Fprintf(&v.out, "in %v\n", time.Duration(at-v.now))
		} else {
			fmt.Fprintln(&v.out, "none")
		}
	case "stats":
		stats := v.s.Stats(v.now)
		if len(a.names) > 0 {
			stats, _ = v.s.JobStats(v.now, v.id(aJob, a.names[0]))
		}
		fmt.Fprintln(&v.out, strings.Replace(statsString(stats), " waiting", "\nwaiting", 1))
	case "tasks":
		for _, j := range v.s.order {
			j.roots.each(func(t *task) {
				fmt.Fprintf(&v.out, "%s%s %v\n", strings.Repeat("  ", t.depth-1), v.names[t.id], t.state)
			})
		}
	default:
		v.groupEvent(cmd, &a)
	}
}

func (v *env) explain(name string) {
	e, ok := v.s.Explain(v.id(aTask, name))
	if !ok {
		fmt.Fprintf(&v.out, "%s is not known\n", name)
		return
	}
	fmt.Fprintf(&v.out, "%s is %s", name, e.State)
	if e.Node != "" {
		fmt.Fprintf(&v.out, " to %s", e.Node)
	}
	if e.Missing > 0 {
		fmt.Fprintf(&v.out, ", %d objects are missing", e.Missing)
	}
	fmt.Fprintln(&v.out)
	for _, n := range e.Nodes {
		never := ""
		if n.Never() {
			never = "never: "
		}
		fmt.Fprintf(&v.out, "  %s: %s%s\n", n.Node, never, n.Why())
	}
}

func (v *env) submit(a arguments, name string) {
	spec := Spec{
		ID:        v.id(aTask, name),
		Job:       v.id(aJob, a.names[0]),
		Name:      name,
		Resources: wray.Resources{CPU: wray.OneCPU, Memory: a.bytes("memory")},
		Custom:    a.custom(),
		Deps:      a.ids(anObject, "deps"),
		Results:   a.ids(anObject, "results"),
		Retries:   int(a.int("retries", 0)),
		Bytes:     a.bytes("bytes"),
		Again:     a.flag("rerun"),
	}
	st := Strategy{Soft: a.flag("soft"), Where: a.selectors()}
	if a.flag("spread") {
		st.Kind = Spread
	}
	if a.has("on") {
		st.Kind, st.Node = OnNode, a.text("on")
	}
	v.inGroup(&a, &st)
	spec.Place = &Place{Strategy: st, Home: a.flag("home")}
	for _, s := range a.opts["near"] {
		peer, text, _ := strings.Cut(s, ":")
		near := Near{Bytes: a.size(text)}
		if peer != "here" {
			near.Peer = v.peer(peer)
		}
		spec.Place.Near = append(spec.Place.Near, near)
	}
	if a.has("cpu") {
		spec.Resources.CPU = a.cpu("cpu")
	}
	if !a.has("results") {
		spec.Results = []wray.ID{v.id(anObject, name)}
	}
	if a.has("parent") {
		spec.Parent = v.id(aTask, a.opts["parent"][0])
		spec.ParentAttempt = a.attempt(spec.Parent)
	}
	if a.has("timeout") {
		d, err := time.ParseDuration(a.opts["timeout"][0])
		if err != nil {
			v.t.Fatal(err)
		}
		spec.Timeout = int64(d)
	}
	if err := v.s.Submit(v.now, &spec); err != nil {
		fmt.Fprintf(&v.out, "refused %s", name)
		if errors.Is(err, ErrQueueFull) {
			fmt.Fprint(&v.out, ", queue full")
		}
		fmt.Fprintf(&v.out, ": %v", err)
		var e *wray.Error
		if errors.As(err, &e) {
			v.hint(e)
		}
		fmt.Fprintln(&v.out)
	}
}

// arguments are those of one line: bare names, and options with values.
type arguments struct {
	v     *env
	names []string
	opts  map[string][]string
}

func (a *arguments) has(key string) bool { return len(a.opts[key]) > 0 }

// flag takes a bare word out of the names.
func (a *arguments) flag(word string) bool {
	for i, n := range a.names {
		if n == word {
			a.names = append(a.names[:i:i], a.names[i+1:]...)
			return true
		}
	}
	return false
}

func (a *arguments) int(key string, otherwise int64) int64 {
	if !a.has(key) {
		return otherwise
	}
	n, err := strconv.ParseInt(a.opts[key][0], 10, 64)
	if err != nil {
		a.v.t.Fatal(err)
	}
	return n
}

func (a *arguments) cpu(key string) wray.CPU {
	f, err := strconv.ParseFloat(a.opts[key][0], 64)
	if err != nil {
		a.v.t.Fatal(err)
	}
	return wray.CPUs(f)
}

// custom reads resources such as (gpu:1,disk:0.5).
func (a *arguments) custom() []wray.Custom {
	var list []wray.Custom
	for _, s := range a.opts["custom"] {
		name, text, _ := strings.Cut(s, ":")
		sign := wray.Amount(1)
		if rest, ok := strings.CutPrefix(text, "-"); ok {
			text, sign = rest, -1
		}
		n, err := wray.ParseAmount(text)
		if err != nil {
			a.v.t.Fatal(err)
		}
		list = append(list, wray.Custom{Name: name, Amount: sign * n})
	}
	return list
}

func (a *arguments) text(key string) string {
	if !a.has(key) {
		return ""
	}
	return a.opts[key][0]
}

// labels reads labels such as (zone:west,disk:ssd).
func (a *arguments) labels() []Label {
	var list []Label
	for _, s := range a.opts["labels"] {
		key, value, _ := strings.Cut(s, ":")
		list = append(list, Label{Key: key, Value: value})
	}
	return list
}

// selectors reads what labels are to be, such as (zone:east|west,spot:!,gpu:*,disk:!hdd).
func (a *arguments) selectors() []wray.Selector {
	var list []wray.Selector
	for _, s := range a.opts["where"] {
		key, values, _ := strings.Cut(s, ":")
		w := wray.Selector{Key: key}
		values, w.Not = strings.CutPrefix(values, "!")
		if values != "" && values != "*" {
			w.Values = strings.Split(values, "|")
		}
		list = append(list, w)
	}
	return list
}

// bytes reads an amount such as 100MiB; 0 without the option.
func (a *arguments) bytes(key string) int64 {
	if !a.has(key) {
		return 0
	}
	return a.size(a.opts[key][0])
}

func (a *arguments) size(text string) int64 {
	unit := int64(1)
	for suffix, n := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(text, suffix); ok {
			text, unit = rest, n
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		a.v.t.Fatal(err)
	}
	return n * unit
}

func (a *arguments) ids(kind uint64, key string) []wray.ID {
	var ids []wray.ID
	for _, n := range a.opts[key] {
		if n != "" {
			ids = append(ids, a.v.id(kind, n))
		}
	}
	return ids
}

// attempt is the one the script names, or the last that was started.
func (a *arguments) attempt(id wray.ID) int {
	return int(a.int("attempt", int64(a.v.attempts[id])))
}

func (a *arguments) error(key string) *wray.Error {
	for c := wray.CodeOK; c <= wray.CodeGroupRemoved; c++ {
		if c.String() == a.opts[key][0] {
			return &wray.Error{Code: c}
		}
	}
	a.v.t.Fatalf("no code is named %q", a.opts[key][0])
	return nil
}

func lentString(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" lent=%d", n)
}
