package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
	"github.com/wray-project/wray/internal/nodeaddr"
	"github.com/wray-project/wray/internal/testenv"
	"github.com/wray-project/wray/tests/hostile"
)

// clocks are the three phases of a collection, as Go's runtime prints them: in
// the first and the last the world is stopped.
var clocks = regexp.MustCompile(`(?m)^gc \d+ .*: ([0-9.]+)\+[0-9.]+\+([0-9.]+) ms clock`)

// TestBar3 has sixteen hostile guests keep a node of a cluster busy for a minute,
// and says what the node and the cluster notice of it.
func TestBar3(t *testing.T) {
	testenv.NeedBars(t)
	dir := t.TempDir()
	t.Setenv("GODEBUG", "gctrace=1")
	head, atHead, said := clusterNode(t, dir, "one", "--head")
	_, atTwo, _ := clusterNode(t, dir, "two", "--address", invited(t, said))
	awaitStatus(t, atTwo, "one", "alive")
	awaitStatus(t, atHead, "two", "alive")
	t.Setenv("GODEBUG", "")

	shapes := []string{"loop-tight", "recursion-fib", "bulk-fill", "host-random", "host-stdout", "call-put", "call-submit-large", "memory-grow-touch"}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var guests sync.WaitGroup
	for i := range 16 {
		name := shapes[i%len(shapes)]
		at := slices.IndexFunc(hostile.Cases(), func(c hostile.Case) bool { return c.Name == name })
		if at < 0 {
			t.Fatalf("the corpus has no %s", name)
		}
		file := filepath.Join(dir, fmt.Sprintf("%d.wasm", i))
		if err := os.WriteFile(file, hostile.Cases()[at].Wasm(), 0o600); err != nil {
			t.Fatal(err)
		}
		guests.Go(func() {
			for ctx.Err() == nil {
				cmd := exec.CommandContext(ctx, wray, "run", "--address", atHead, file)
				_ = cmd.Run() // how it ends is other tests' to say
			}
		})
	}
	conn, err := nodeaddr.Dial(t.Context(), atHead)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		_ = conn.Serve(context.Background(), func(_ context.Context, m link.Message) (link.Message, error) {
			m.CloseFiles()
			return link.Message{}, nil
		})
	}()
	body, err := link.Marshal(struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	var took []time.Duration
	deaths, failed := 0, 0
	for ctx.Err() == nil {
		begin := time.Now()
		m, err := conn.Call(t.Context(), link.Message{Kind: clientwire.KindStatus, Body: body})
		took = append(took, time.Since(begin))
		if err != nil {
			failed++
			t.Error(err)
			break
		}
		m.CloseFiles()
		var s clientwire.Status
		if err := link.Unmarshal(m.Body, &s); err != nil {
			t.Fatal(err)
		}
		for _, n := range s.Nodes {
			if n.Status != "alive" {
				deaths++
				t.Errorf("%s is held for %s", n.Name, n.Status)
			}
		}
		time.Sleep(20 * time.Millisecond) // the rate of the questions
	}
	guests.Wait()
	c := awaitStatus(t, atTwo, "one", "alive")
	for _, n := range c.Nodes {
		if n.Incarnation > 1 {
			t.Logf("%s began %d times", n.Name, n.Incarnation)
		}
	}
	slices.Sort(took)
	p99 := took[len(took)*99/100]
	head.end()
	worst, collections := 0.0, 0
	for _, m := range clocks.FindAllStringSubmatch(head.errs.String(), -1) {
		collections++
		for _, phase := range m[1:] {
			ms, err := strconv.ParseFloat(phase, 64)
			if err != nil {
				t.Fatal(err)
			}
			worst = max(worst, ms)
		}
	}
	testenv.Bar(t, 3, deaths, "times a node was held for anything but alive", deaths == 0)
	testenv.Bar(t, 3, float64(p99.Microseconds())/1000, fmt.Sprintf("ms for the status of the node, p99 of %d, at most 100", len(took)), failed == 0 && p99 <= 100*time.Millisecond)
	if collections == 0 {
		t.Errorf("the node printed no collection:\n%.2000s", strings.TrimSpace(head.errs.String()))
	}
	testenv.Bar(t, 3, worst, fmt.Sprintf("ms is the longest that the collector stopped the node, of %d collections, at most 25", collections), worst <= 25)
}
