package worker

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/wasm/abi"
)

// TestBadPeers has values that no message holds, code that does not come, or
// late, and peers that speak nonsense.
func TestBadPeers(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIP: -short: it compiles a Go program")
	}
	guest := compileGuest(t, "cluster")
	two := func(t *testing.T) (net *twin, a, b *twinEnd) {
		net = newTwin(t, guest.module)
		cfg := Config{StoreBytes: 256 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30}}
		a = net.join("a", cfg)
		cfg.Capacity.CPU, cfg.Custom = 4*wray.OneCPU, []wray.Custom{{Name: "there", Amount: 4 * wray.OneUnit}}
		b = net.join("b", cfg)
		awaitPeers(t, a, 1)
		return net, a, b
	}
	done := func(t *testing.T, net *twin, ends ...*twinEnd) {
		for _, e := range ends {
			awaitNothing(t, e)
		}
		if len(net.severed) > 0 {
			t.Error("severed:", net.severed)
		}
		net.close()
	}
	t.Run("hoard", func(t *testing.T) {
		net, a, b := two(t)
		j := net.job(a, nil, "hoard")
		got := j.rest()
		for i, want := range []string{
			"hoard: LimitExceeded on b, attempt 1, trace false: what the task returned cannot go to another node: 70001 references go with it",
			"kept: 70000 <nil>",
			"count: LimitExceeded on a, attempt 1, trace false: the task cannot go to another node: 70001 references go with it",
			"peek: UserError on b, attempt 1, trace false: LimitExceeded: the value cannot go to another node: 70000 references go with it",
			"odd: BadArgument on a, attempt 1, trace false: function \"odd\\xff\" cannot run on another node: the name \"odd\\xff\" is not UTF-8",
			"inner: 49 <nil>",
		} {
			if i >= len(got) || !strings.HasPrefix(got[i], want) {
				t.Errorf("line %d of\n%s\nwant %s", i, strings.Join(got, "\n"), want)
			}
		}
		done(t, net, a, b)
	})
	t.Run("stop while it loads", func(t *testing.T) {
		net, a, b := two(t)
		asked, loaded := make(chan struct{}), make(chan struct{})
		b.load = func(ctx context.Context) (ModuleSpec, error) {
			close(asked)
			select {
			case <-loaded:
			case <-ctx.Done():
			}
			return guest.module, nil
		}
		j := net.job(a, nil, "stop")
		if line := j.next(); line != "asked" {
			t.Fatal(line)
		}
		<-asked
		j.goOn()
		if line := j.next(); !strings.HasPrefix(line, "stopped: Canceled") { // while the code does not come
			t.Error(line)
		}
		close(loaded)
		j.rest()
		done(t, net, a, b)
	})
	t.Run("load fails", func(t *testing.T) {
		net, a, b := two(t)
		failures := 2 // guarded by the mirror's loading, one at a time
		b.load = func(ctx context.Context) (ModuleSpec, error) {
			if failures > 0 {
				failures--
				return ModuleSpec{}, errors.New("the link was down")
			}
			return guest.module, nil
		}
		j := net.job(a, nil, "many", "6")
		got := j.rest()
		notices := 0
		for _, line := range got[:len(got)-1] {
			if strings.Contains(line, "node b cannot run tasks of this job for now") && strings.Contains(line, "the link was down") {
				notices++
			}
		}
		// The second failure is told of where an attempt waited for it.
		if notices < 1 || notices > 2 || got[len(got)-1] != "many: 6 <nil>" {
			t.Error(strings.Join(got, "\n"))
		}
		done(t, net, a, b)
	})
	t.Run("nonsense", func(t *testing.T) {
		net, a, b := two(t)
		j := net.job(a, nil, "cut") // a waits for what b runs
		if line := j.next(); line != "asked" {
			t.Fatal(line)
		}
		if err := b.w.PeerMessage(a.w.PeerID(), []byte{0xff}); err == nil {
			t.Error("nonsense was taken")
		}
		// Both know, though one alone has seen it. Another comes, and has the task.
		cfg := Config{StoreBytes: 64 << 20, Slots: 2, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 2 << 30},
			Custom: []wray.Custom{{Name: "there", Amount: wray.OneUnit}}}
		c := net.join("c", cfg)
		j.goOn()
		if got := j.rest(); len(got) != 1 || got[0] != "large: 1048576 <nil>" {
			t.Error(got)
		}
		if len(net.severed) != 1 || !strings.HasPrefix(net.severed[0], "b from a: ") {
			t.Error(net.severed)
		}
		net.severed = nil
		done(t, net, a, b, c)
	})
}

// deafWorker is a worker with a peer that has greeted it and says nothing more.
func deafWorker(t *testing.T) (w *Worker, p *peer) {
	w, err := New(t.Context(), Config{StoreBytes: 1 << 20, Slots: 1, Peering: &deaf{}, Capacity: wray.Resources{CPU: wray.OneCPU, Memory: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	w.PeerUp(7, "b")
	p = w.peers.peers[7]
	tell(t, w, &peerMessage{Hello: &helloBody{CPU: 20_000, Memory: 1 << 30}})
	return w, p
}

func tell(t *testing.T, w *Worker, m *peerMessage) {
	t.Helper()
	b, err := link.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.PeerMessage(7, b); err != nil {
		t.Fatal(err)
	}
}

// An attempt whose end has come, and whose results are being sealed, is not run
// again because its peer goes meanwhile.
func TestDownWhileSealing(t *testing.T) {
	w, p := deafWorker(t)
	w.peers.mu.Lock()
	p.ending++ // as reply does
	w.peers.mu.Unlock()
	w.PeerDown(7)
	if p.gone {
		t.Error("the peer was buried before the results were sealed")
	}
	if len(w.Peers()) != 0 {
		t.Error("a peer that is down is still there")
	}
	w.peers.endingDone(p)
	if !p.gone {
		t.Error("the peer was not buried")
	}
}

// Who announces a job while its mirror ends, and then ends it, or is gone, has
// not announced it.
func TestStaleAnnouncement(t *testing.T) {
	w, p := deafWorker(t)
	id := wray.ID{Owner: 7, Seq: 4096}
	m := &mirror{job: &job{w: w, id: id}, owner: p, cancel: func() {}, state: mirrorEnded, from: map[*peer]bool{}}
	w.peers.mirrors[id] = m
	defer delete(w.peers.mirrors, id)
	announce := &peerMessage{Job: &jobBody{ID: bodyOf(id), Name: "j", Modules: []jobModule{{"m", "h"}}}}
	tell(t, w, announce)
	tell(t, w, announce)
	if len(m.next) != 1 {
		t.Errorf("%d announcements, 1 is wanted", len(m.next))
	}
	end := bodyOf(id)
	tell(t, w, &peerMessage{EndJob: &end})
	if len(m.next) != 0 {
		t.Error("a job that was ended is still announced")
	}
	tell(t, w, announce)
	w.PeerDown(7)
	if len(m.next) != 0 {
		t.Error("a job is still announced by a peer that is gone")
	}
}

// TestNonsense has messages that decode and say what no worker says.
func TestNonsense(t *testing.T) {
	for what, m := range map[string]*peerMessage{
		"an error elsewhere": {Value: &objectBody{Value: valueBody{Encoding: uint32(abi.EncodingError), Away: 1 << 20}}},
		"a long name":        {Output: &printedBody{Task: strings.Repeat("x", maxName+1), Stream: Stdout}},
		"a long function":    {Lend: &lendBody{Attempt: 1, Func: strings.Repeat("x", maxName+1)}},
	} {
		b, err := link.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodePeer(b); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

// TestFloods has a peer ask for the same again and again, and send what it was
// not asked for.
func TestFloods(t *testing.T) {
	w, p := deafWorker(t)
	var watched atomic.Int32
	o, err := w.store.Declare(w.newID())
	if err != nil {
		t.Fatal(err)
	}
	id := bodyOf(o.ID())
	for range 1000 {
		tell(t, w, &peerMessage{Borrow: &id, Await: []idBody{id, id}})
		tell(t, w, &peerMessage{Release: []grantBody{{ID: id, Grants: 1}}})
	}
	d := w.peers.net.(*deaf)
	d.mu.Lock()
	d.sent = nil
	d.mu.Unlock()
	if err := o.TrySeal(objectstore.Value{Encoding: abi.EncodingCBOR, Payload: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	for _, b := range d.sent {
		if m, err := decodePeer(b); err == nil && m.Value != nil {
			watched.Add(1)
		}
	}
	d.mu.Unlock()
	if n := watched.Load(); n != 1 {
		t.Errorf("the value was told %d times, to one who asked again and again", n)
	}
	o.Release()

	m := &mirror{job: &job{w: w, id: wray.ID{Owner: 7, Seq: 4096}}, owner: p, cancel: func() {}, state: mirrorLoading, from: map[*peer]bool{p: true}}
	w.peers.mirrors[m.job.id] = m
	defer delete(w.peers.mirrors, m.job.id)
	payload := make([]byte, objectstore.InlineMax)
	for i := range 2000 {
		args := make([]argBody, 16)
		for k := range args {
			args[k] = argBody{Value: valueBody{Encoding: uint32(abi.EncodingCBOR), Payload: payload}}
		}
		tell(t, w, &peerMessage{Lend: &lendBody{Job: bodyOf(m.job.id), Task: idBody{7, uint64(8192 + i<<12)}, Attempt: 1, Args: args}})
	}
	if len(m.waiting) > 70 || p.waits > maxWaitingBytes {
		t.Errorf("%d attempts of 1 MiB wait for their code, %d bytes", len(m.waiting), p.waits)
	}
	for len(m.waiting) > 0 {
		tell(t, w, &peerMessage{Stop: &stopBody{Task: m.waiting[0].body.Task, Attempt: 1, Code: uint32(wray.CodeCanceled)}})
	}
	if p.waits != 0 {
		t.Errorf("%d bytes are counted when none wait", p.waits)
	}

	stuck, goOn := make(chan struct{}, 1), make(chan struct{})
	j := &job{w: w, id: w.newID(), out: newOutput(func(string, Stream, []byte) {
		select {
		case stuck <- struct{}{}:
		default:
		}
		<-goOn
	})}
	w.mu.Lock()
	w.jobs[j.id] = j
	w.mu.Unlock()
	print := &peerMessage{Output: &printedBody{Job: bodyOf(j.id), Stream: Stdout, Data: make([]byte, maxPrinted)}}
	j.out.put("", Stdout, make([]byte, maxQueuedOutput))
	<-stuck
	tell(t, w, print)
	b, err := link.Marshal(print)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.PeerMessage(7, b); err == nil {
		t.Error("a peer printed before it was asked for more")
	}
	close(goOn)
	w.mu.Lock()
	delete(w.jobs, j.id)
	w.mu.Unlock()
	j.out.close()
	if err := w.PeerMessage(7, b); err != nil { // it is down, and nobody hears it
		t.Error(err)
	}
}

// Who greets again is refused: each greeting may have names of its own.
func TestGreetsAgain(t *testing.T) {
	w, _ := deafWorker(t)
	b, err := link.Marshal(&peerMessage{Hello: &helloBody{CPU: 1, Memory: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.PeerMessage(7, b); err == nil {
		t.Error("it was taken")
	}
}
