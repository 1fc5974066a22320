package main

import (
	"context"
	"errors"

	"github.com/wray-project/wray/sdk"
)

// noted is a call of a durable actor by somebody else.
type noted struct {
	Of  sdk.Handle[int]
	Key string
	By  int
}

var (
	notes  = sdk.Actor("notes", func(_ context.Context, n int) (*int, error) { return &n, nil }).With(sdk.Durable(), sdk.Name("notes"))
	note   = sdk.Method(notes, "note", func(n *int, _ context.Context, by int) (int, error) { *n += by; return *n, nil })
	noteBy = func(ctx context.Context, n noted) (int, error) {
		v, err := note.With(sdk.CallKey(n.Key)).Remote(ctx, n.Of, n.By).Get(ctx)
		if err != nil {
			err = errors.New(err.Error())
		}
		return v, err
	}
	noteHere  = sdk.Func("noteHere", noteBy)
	noteThere = sdk.Func("noteThere", noteBy).With(there)
)

// keyed has a durable actor called with keys, from its node and from another.
func keyed(ctx context.Context) error {
	h := notes.New(ctx, 100)
	for _, c := range []struct {
		what string
		task sdk.Task1[noted, int]
		key  string
		by   int
	}{{"there", noteThere, "a", 1}, {"there again", noteThere, "a", 1}, {"here again", noteHere, "a", 1}, {"here", noteHere, "b", 10},
		{"then there", noteThere, "b", 10}, {"another", noteThere, "b", 11}, {"new", noteThere, "c", 1000}} {
		v, err := c.task.Remote(ctx, noted{h, c.key, c.by}).Get(ctx)
		say(c.what, v, err)
	}
	return h.Kill()
}
