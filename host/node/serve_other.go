//go:build !linux

package node

import (
	"errors"
	"net"
	"os"
)

// Native clients need descriptors to be passed, and peers to be known.

func lockSocket(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func checkPeer(*net.UnixConn) error { return errors.ErrUnsupported }

func checkSocket(*os.File) error { return errors.ErrUnsupported }

func dirPath(*os.File) (string, func(), error) { return "", nil, errors.ErrUnsupported }
