package controltest

import (
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/wray-project/wray/host/control"
)

type revision = control.Revision

// TestModel holds what the model of histories takes for right and for wrong.
func TestModel(t *testing.T) {
	type req struct {
		in  input
		out output
	}
	get := func(value string, rev int) req {
		return req{input{op: "get"}, output{value: value, rev: revision(rev)}}
	}
	put := func(value string, rev int) req {
		return req{input{op: "put", value: value}, output{rev: revision(rev)}}
	}
	lost := func(r req) req { return req{r.in, output{result: isUnknown}} }
	cas := func(value string, from, rev int) req {
		return req{input{op: "cas", value: value, rev: revision(from)}, output{rev: revision(rev)}}
	}
	refused := func(r req) req { return req{r.in, output{result: isRefused}} }
	none := req{input{op: "get"}, output{result: isAbsent}}
	del := func(from, rev int) req {
		return req{input{op: "delete", rev: revision(from)}, output{rev: revision(rev)}}
	}
	for name, c := range map[string]struct {
		ok   bool
		reqs []req // one after another, but for those that are lost, which end last
	}{
		"read what was put":                {true, []req{none, put("a", 5), get("a", 5)}},
		"read what was not":                {false, []req{put("a", 5), get("b", 5)}},
		"read another revision":            {false, []req{put("a", 5), get("a", 6)}},
		"read too late":                    {false, []req{put("a", 5), put("b", 6), get("a", 5)}},
		"revisions go back":                {false, []req{put("a", 5), put("b", 4)}},
		"a first put is lost, and done":    {true, []req{lost(put("a", 0)), get("a", 5), get("a", 5)}},
		"a put is lost, and done later":    {true, []req{put("b", 3), lost(put("a", 0)), get("b", 3), get("a", 5)}},
		"a put is lost, and done not":      {true, []req{lost(put("a", 0)), none, put("b", 2), get("b", 2)}},
		"a put is lost, and done twice":    {false, []req{lost(put("a", 0)), get("a", 5), put("b", 6), get("a", 7)}},
		"a put is lost, and known to two":  {false, []req{lost(put("a", 0)), get("a", 5), get("a", 6)}},
		"a put is lost, and is older":      {false, []req{put("b", 9), lost(put("a", 0)), get("a", 5)}},
		"compare-and-set":                  {true, []req{put("a", 5), cas("b", 5, 6), refused(cas("c", 5, 0)), get("b", 6)}},
		"compare-and-set, both":            {false, []req{put("a", 5), cas("b", 5, 6), cas("c", 5, 7)}},
		"refused without reason":           {false, []req{put("a", 5), refused(cas("b", 5, 0))}},
		"refused for one that was lost":    {true, []req{put("a", 5), lost(cas("b", 5, 0)), refused(cas("c", 5, 0)), get("b", 6)}},
		"deleted":                          {true, []req{put("a", 5), del(5, 6), none, put("b", 7)}},
		"deleted, and there":               {false, []req{put("a", 5), del(5, 6), get("a", 5)}},
		"a deletion is lost, and done":     {true, []req{put("a", 5), lost(del(5, 0)), none}},
		"a deletion is lost, and not done": {true, []req{put("a", 5), lost(del(5, 0)), get("a", 5)}},
	} {
		var ops []porcupine.Operation
		for i, r := range c.reqs {
			o := porcupine.Operation{ClientId: i, Input: r.in, Output: r.out, Call: int64(2 * i), Return: int64(2*i + 1)}
			if r.out.result == isUnknown {
				o.Return = 1 << 62
			}
			ops = append(ops, o)
		}
		if got := porcupine.CheckOperations(model, ops); got != c.ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}
