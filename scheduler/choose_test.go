package scheduler

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/wray-project/wray"
)

func sitesOf(free ...int64) []site {
	var list []site
	for _, n := range free {
		list = append(list, site{free: []int64{n}})
	}
	return list
}

func piecesOf(need ...int64) []piece {
	var list []piece
	for _, n := range need {
		list = append(list, piece{need: []int64{n}})
	}
	return list
}

func TestChoose(t *testing.T) {
	held := func(list []site, at int, n int) []site { list[at].held = n; return list }
	only := func(list []piece, piece int, allowed ...bool) []piece { list[piece].allowed = allowed; return list }
	for _, c := range []struct {
		name     string
		strategy wray.GroupStrategy
		sites    []site
		pieces   []piece
		want     string
	}{
		{"pack takes one node where one holds all", wray.GroupPack, sitesOf(2, 8, 4), piecesOf(2, 2), "[2 2]"},
		{"pack takes this node among equals", wray.GroupPack, sitesOf(4, 4), piecesOf(2, 2), "[0 0]"},
		{"pack takes two where one does not", wray.GroupPack, sitesOf(2, 3, 1), piecesOf(1, 3, 1), "[0 1 0]"},
		{"pack goes where the rest is", wray.GroupPack, held(sitesOf(4, 4), 1, 2), piecesOf(1), "[1]"},
		{"pack goes elsewhere where the rest has no room", wray.GroupPack, held(sitesOf(4, 0), 1, 2), piecesOf(1), "[0]"},
		{"pack finds none", wray.GroupPack, sitesOf(2, 2), piecesOf(3), "[]"},
		{"all or none", wray.GroupPack, sitesOf(2, 2), piecesOf(2, 2, 1), "[]"},
		{"spread uses all nodes", wray.GroupSpread, sitesOf(8, 8, 8), piecesOf(1, 1, 1), "[0 1 2]"},
		{"spread doubles up where it must", wray.GroupSpread, sitesOf(8, 2), piecesOf(1, 1, 1), "[0 1 0]"},
		{"spread leaves the node with the rest alone", wray.GroupSpread, held(sitesOf(9, 4), 0, 1), piecesOf(1), "[1]"},
		{"strict pack wants one", wray.GroupStrictPack, sitesOf(2, 2, 2), piecesOf(1, 2), "[]"},
		{"strict pack takes the tightest", wray.GroupStrictPack, sitesOf(9, 3, 4), piecesOf(1, 2), "[1 1]"},
		{"strict pack stays where the rest is", wray.GroupStrictPack, held(sitesOf(9, 3), 1, 1), piecesOf(4), "[]"},
		{"strict spread wants as many", wray.GroupStrictSpread, sitesOf(9), piecesOf(1, 1), "[]"},
		{"strict spread finds the one way", wray.GroupStrictSpread, sitesOf(3, 2, 1), piecesOf(1, 2, 3), "[2 1 0]"},
		{"strict spread finds the one way by labels", wray.GroupStrictSpread, sitesOf(2, 2), only(piecesOf(1, 1), 1, true, false), "[1 0]"},
		{"strict spread leaves the node with the rest", wray.GroupStrictSpread, held(sitesOf(9, 9), 0, 1), piecesOf(1), "[1]"},
	} {
		if got := fmt.Sprint(choose(c.strategy, c.sites, c.pieces)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

var chooseSeed = flag.Uint64("choose-seed", 0, "seed of TestChooseRandom; 0: one is drawn")

// TestChooseRandom compares choices with all that there are, on small clusters.
func TestChooseRandom(t *testing.T) {
	seed := *chooseSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for range 3000 {
		sites := make([]site, 1+r.IntN(4))
		for i := range sites {
			sites[i] = site{free: []int64{r.Int64N(5), r.Int64N(5)}, held: max(r.IntN(8)-6, 0)}
		}
		pieces := make([]piece, 1+r.IntN(4))
		for k := range pieces {
			pieces[k].need = []int64{r.Int64N(4), r.Int64N(4)}
			if r.IntN(3) == 0 {
				for range sites {
					pieces[k].allowed = append(pieces[k].allowed, r.IntN(3) > 0)
				}
			}
		}
		strategy := wray.GroupStrategy(r.IntN(4))
		if one := r.IntN(len(sites)); strategy == wray.GroupStrictPack { // else it would not be one already
			for i := range sites {
				if i != one {
					sites[i].held = 0
				}
			}
		}
		before := fmt.Sprintf("%+v of %+v", pieces, sites)
		clone := func() []site {
			var list []site
			for _, st := range sites {
				list = append(list, site{append([]int64(nil), st.free...), st.held})
			}
			return list
		}
		at := choose(strategy, clone(), pieces)
		fewest, most := bounds(sites, pieces, strategy)
		fail := func(format string, args ...any) {
			t.Fatalf("%v, %s: %v: %s\nrepeat with: go test ./scheduler -run TestChooseRandom -choose-seed %d",
				strategy, before, at, fmt.Sprintf(format, args...), seed)
		}
		if at == nil {
			if most > 0 && (strategy == wray.GroupStrictPack || strategy == wray.GroupStrictSpread) {
				fail("there is a way")
			}
			continue
		}
		n, ok := judge(clone(), pieces, at, strategy)
		switch {
		case !ok:
			fail("it does not fit, or is not as the strategy wants it")
		case strategy == wray.GroupPack && fewest == 1 && n != 1:
			fail("one node would hold all")
		case strategy == wray.GroupSpread && most == len(pieces) && n != most && !anyHeld(sites):
			fail("they could lie apart")
		}
	}
}

func anyHeld(sites []site) bool {
	for _, st := range sites {
		if st.held > 0 {
			return true
		}
	}
	return false
}

// judge returns how many sites a choice makes use of, with those that are in use
// already, and whether it may be.
func judge(sites []site, pieces []piece, at []int, strategy wray.GroupStrategy) (n int, ok bool) {
	for k, i := range at {
		if !pieces[k].fits(i, sites) {
			return 0, false
		}
		sites[i].take(&pieces[k])
	}
	for _, st := range sites {
		if st.held > 0 {
			n++
		}
	}
	for _, i := range at {
		if strategy == wray.GroupStrictPack && n > 1 || strategy == wray.GroupStrictSpread && sites[i].held > 1 {
			return n, false
		}
	}
	return n, true
}

// bounds returns the fewest and the most sites that any choice makes use of; 0:
// there is none.
func bounds(sites []site, pieces []piece, strategy wray.GroupStrategy) (fewest, most int) {
	at := make([]int, len(pieces))
	for {
		var clone []site
		for _, st := range sites {
			clone = append(clone, site{append([]int64(nil), st.free...), st.held})
		}
		if n, ok := judge(clone, pieces, at, strategy); ok {
			if fewest == 0 || n < fewest {
				fewest = n
			}
			most = max(most, n)
		}
		k := 0
		for k < len(at) {
			if at[k]++; at[k] < len(sites) {
				break
			}
			at[k] = 0
			k++
		}
		if k == len(at) {
			return fewest, most
		}
	}
}
