package worker

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/wray-project/wray"
)

// TestModuleNames holds that a module does not take the place of another of the
// same name, such as the driver's.
func TestModuleNames(t *testing.T) {
	guest := compileGuest(t, "sleepers")
	ctx := context.Background()
	w, err := New(ctx, Config{Slots: 1, CacheDir: guest.cache, Capacity: wray.Resources{CPU: wray.CPUs(1), Memory: 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	_, err = w.Run(ctx, JobSpec{Name: "twice", Modules: []ModuleSpec{guest.module, guest.module}})
	if !errors.Is(err, wray.ErrBadArgument) || !strings.Contains(err.Error(), "two modules of the job are called") {
		t.Errorf("two modules of one name: %v", err)
	}
}
