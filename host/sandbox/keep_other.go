//go:build !linux

package sandbox

import "errors"

// keep is there where pages can be mapped copy-on-write.
type keep struct{ size uint64 }

func (k *keep) close() error { return nil }

func mayKeep() bool { return false }

func (m *linearMemory) begin([]Base) error   { return errors.ErrUnsupported }
func (m *linearMemory) advance([]Base) error { return errors.ErrUnsupported }
func (m *linearMemory) layKeep(*keep) error  { return errors.ErrUnsupported }
