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

// linearizable holds calls of counters to this: in each life of an actor there is
// an order of them that explains all answers, in which no call is after one that
// began when it had been answered. A counter that may be anywhere may have been
// called by somebody who did not live to tell; the books were not.
func linearizable(t testing.TB, ops []op) {
	t.Helper()
	byLife := map[string][]porcupine.Operation{}
	for _, o := range ops {
		life := fmt.Sprint(o.Actor, " in life ", o.Epoch)
		byLife[life] = append(byLife[life], porcupine.Operation{ClientId: o.Client, Input: o, Output: o.N, Call: o.Call, Return: o.Return})
	}
	model := porcupine.Model{
		Init: func() any { return 0 },
		Step: func(state, in, out any) (bool, any) {
			s, o := state.(int), in.(op)
			if o.Epoch == 0 {
				return o.N == s+o.Add, o.N
			}
			return o.N > s, o.N
		},
	}
	for life, ops := range byLife {
		if r := porcupine.CheckOperationsTimeout(model, ops, time.Minute); r == porcupine.Illegal {
			t.Errorf("calls of %s are not linearizable: %+v", life, ops)
		} else if r == porcupine.Unknown {
			t.Errorf("whether calls of %s are linearizable was not found out in a minute: %d calls", life, len(ops))
		}
	}
	t.Logf("%d calls of actors in %d lives are linearizable, if nothing else is said", len(ops), len(byLife))
}
