package wasi_test

import (
	"testing"

	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/host/wasi/wasitest"
)

func TestRootFS(t *testing.T) {
	wasitest.TestFS(t, func(t *testing.T, dir string) wasi.FS { return grant(t, "/", dir).FS })
}
