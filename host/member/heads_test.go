package member_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/member"
)

// quorum lets in whoever asks.
type quorum struct {
	kept
	removed func(name string) error // may be nil
}

func (quorum) Heads(context.Context) ([]control.Head, error) { return nil, nil }
func (quorum) AddHead(_ context.Context, _, addr string) ([]string, error) {
	return []string{addr}, nil
}
func (quorum) Promote(context.Context) error { return nil }
func (q quorum) RemoveHead(_ context.Context, name string) error {
	if q.removed != nil {
		return q.removed(name)
	}
	return nil
}

// A further head whose control state does not open keeps no authority, unless it
// has a control state to go on with; and the next start is as the first.
func TestFurtherHeadFails(t *testing.T) {
	w := newWorld(t)
	c := w.config("head", t.TempDir())
	c.OpenControl = func(context.Context, string, control.Port) (control.Store, error) {
		return quorum{kept: kept{w.store}}, nil
	}
	head := w.start(c)
	tok, err := head.NewToken(w.ctx(), auth.TokenOptions{Head: true})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	var keeps bool // what it has made when it fails
	opens := error(nil)
	c = w.config("a", t.TempDir())
	c.Join, c.Token = head.Self().Addr, tok.Reveal()
	made := false
	c.ControlKept = func(string) bool { return made }
	c.OpenControl = func(context.Context, string, control.Port) (control.Store, error) {
		made = keeps || opens == nil
		return quorum{kept: kept{w.store}}, opens
	}
	for _, step := range []struct {
		name  string
		opens error
		keeps bool
	}{
		{"it fails at once", broken, false},
		{"it fails later", broken, true},
		{"it opens", nil, true},
	} {
		opens, keeps = step.opens, step.keeps
		m, err := member.Start(w.ctx(), c)
		if !errors.Is(err, step.opens) {
			t.Fatalf("%s: %v", step.name, err)
		}
		for _, file := range []string{auth.AuthorityFile, auth.HeadsFile} {
			_, err := os.Stat(filepath.Join(c.Dir, file))
			if there := !errors.Is(err, fs.ErrNotExist); there != step.keeps {
				t.Errorf("%s: %s is there: %v, want %v", step.name, file, there, step.keeps)
			}
		}
		if m != nil {
			m.Close()
		}
	}
}

// A head that is removed may not be one when the others hear of it: else it would
// ask to be let in again, and be.
func TestRemoveHead(t *testing.T) {
	w := newWorld(t)
	reg := &auth.Registrar{Store: w.store}
	isHead := func() bool {
		is, err := reg.IsHead(w.ctx(), "a")
		if err != nil {
			t.Error(err)
		}
		return is
	}
	removed := 0
	c := w.config("head", t.TempDir())
	c.OpenControl = func(context.Context, string, control.Port) (control.Store, error) {
		return quorum{kept{w.store}, func(name string) error {
			if removed++; isHead() || name != "a" {
				t.Errorf("%s is removed, and a may still be a head", name)
			}
			return nil
		}}, nil
	}
	head := w.start(c)
	tok, err := head.NewToken(w.ctx(), auth.TokenOptions{Head: true})
	if err != nil {
		t.Fatal(err)
	}
	c = w.config("a", t.TempDir())
	c.Join, c.Token = head.Self().Addr, tok.Reveal()
	w.start(c)
	if !isHead() {
		t.Fatal("a token for heads lets none in")
	}
	if err := head.RemoveHead(w.ctx(), "a"); err != nil || removed != 1 {
		t.Errorf("removed %d times: %v", removed, err)
	}
}
