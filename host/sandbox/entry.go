package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/cpu"
)

// This file is what makes an engine with a cache directory one that never
// compiles: it loads the entry it was told to, or nothing.

// entryName returns the name of the file that wazero looks for when it is given
// wasm: by the rules of its fileCacheKey and AssignModuleID, with the settings
// of runtimeConfig. A test compares it with what wazero does. The directory
// about it bears wazero's version, as does the file's head, which it checks.
func entryName(wasm []byte) string {
	id := sha256.New()
	id.Write(wasm)
	id.Write([]byte{0}) // WithCloseOnContextDone is off, and nothing listens
	key := sha256.New()
	key.Write(id.Sum(nil))
	key.Write([]byte("WAZEVO"))
	key.Write(binary.LittleEndian.AppendUint64(nil, processorFeatures()))
	return hex.EncodeToString(key.Sum(nil))
}

// processorFeatures are what wazero asks of the processor, as it numbers them
// (internal/platform/cpuid_*.go).
func processorFeatures() (f uint64) {
	set := func(on bool, bit uint64) {
		if on {
			f |= bit
		}
	}
	switch runtime.GOARCH {
	case "amd64":
		x := &cpu.X86
		set(x.HasSSE41, 1)
		set(x.HasBMI1, 2)
		set(x.HasBMI1 && x.HasBMI2 && x.HasPOPCNT, 4)
	case "arm64":
		set(cpu.ARM64.HasATOMICS, 1)
	}
	return f
}

// checkEntry makes sure that native, the file that the node has authenticated,
// is there and is the one that wazero will load for wasm.
func (e *Engine) checkEntry(native string, wasm []byte) error {
	if native == "" {
		return errors.New("no compiled code named")
	}
	if dir := filepath.Dir(filepath.Dir(native)); dir != e.cacheDir {
		return fmt.Errorf("compiled code in %s, where the engine does not look", dir)
	}
	if have, want := filepath.Base(native), entryName(wasm); have != want {
		return fmt.Errorf("compiled code %s is of another module: this one's is %s", have, want)
	}
	st, err := os.Lstat(native)
	if err != nil {
		return fmt.Errorf("compiled code is missing: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("compiled code %s is not a file", filepath.Base(native))
	}
	return nil
}

// loadOnly has wazero load compiled code, or fail: with a context that is over
// and more than one worker it gives up before the first function. The file may
// have gone, or turned out to be of no use, since it was looked at.
func (e *Engine) loadOnly(ctx context.Context, wasm []byte) (wazero.CompiledModule, error) {
	over, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	cancel(errNotCompiled)
	return e.rt.CompileModule(experimental.WithCompilationWorkers(over, 2), wasm)
}

var errNotCompiled = errors.New("the code cache has no code that fits this module")
