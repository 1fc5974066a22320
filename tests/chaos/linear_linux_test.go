package chaos

import (
	"fmt"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// op is a call of an actor, as the guest prints it.
type op struct {
	Actor        string
	Client       int
	Epoch        uint64 // the actor's life
	N, Add       int    // what was answered; what was to be added
	Call, Return int64
}

// lives are the calls of each life of an actor.
func lives(ops []op) map[string][]porcupine.Operation {
	lives := map[string][]porcupine.Operation{}
	for _, o := range ops {
		life := fmt.Sprint(o.Actor, " in life ", o.Epoch)
		lives[life] = append(lives[life], porcupine.Operation{ClientId: o.Client, Input: o, Output: o.N, Call: o.Call, Return: o.Return})
	}
	return lives
}

// counting is what a counter does: in each of its lives there is an order of the
// calls that explains all answers, in which no call is after one that began when it
// had been answered. A counter that may be anywhere may have been called by somebody
// who did not live to tell; the books were not.
var counting = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, in, out any) (bool, any) {
		s, o := state.(int), in.(op)
		if o.Epoch == 0 {
			return o.N == s+o.Add, o.N
		}
		return o.N > s, o.N
	},
}

// linearizable holds calls of actors to that.
func linearizable(t testing.TB, ops []op) {
	t.Helper()
	all := lives(ops)
	for life, ops := range all {
		if r := porcupine.CheckOperationsTimeout(counting, ops, time.Minute); r == porcupine.Illegal {
			t.Errorf("calls of %s are not linearizable: %+v", life, ops)
		} else if r == porcupine.Unknown {
			t.Errorf("whether calls of %s are linearizable was not found out in a minute: %d calls", life, len(ops))
		}
	}
	t.Logf("%d calls of actors in %d lives are linearizable, if nothing else is said", len(ops), len(all))
}

// TestHistories holds the check itself to histories that are right and wrong.
func TestHistories(t *testing.T) {
	for _, c := range []struct {
		what string
		want porcupine.CheckResult
		ops  []op
	}{
		{"calls that overlap, in either order", porcupine.Ok, []op{{Actor: "books", N: 3, Add: 2, Call: 1, Return: 9}, {Actor: "books", Client: 1, N: 1, Add: 1, Call: 2, Return: 8}}},
		{"an entry that is there twice", porcupine.Illegal, []op{{Actor: "books", N: 2, Add: 1, Call: 1, Return: 2}}},
		{"a call that does not see one that was answered", porcupine.Illegal, []op{{Actor: "c", Epoch: 7, N: 2, Call: 1, Return: 2}, {Actor: "c", Client: 1, Epoch: 7, N: 1, Call: 3, Return: 4}}},
		{"one answer for two", porcupine.Illegal, []op{{Actor: "c", Epoch: 7, N: 1, Call: 1, Return: 5}, {Actor: "c", Client: 1, Epoch: 7, N: 1, Call: 2, Return: 4}}},
		{"calls of somebody who did not live to tell", porcupine.Ok, []op{{Actor: "c", Epoch: 7, N: 2, Call: 1, Return: 2}, {Actor: "c", Epoch: 7, N: 5, Call: 3, Return: 4}}},
	} {
		for _, ops := range lives(c.ops) {
			if got := porcupine.CheckOperationsTimeout(counting, ops, time.Minute); got != c.want {
				t.Errorf("%s: %v, want %v", c.what, got, c.want)
			}
		}
	}
}
