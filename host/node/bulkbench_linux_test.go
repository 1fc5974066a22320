package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"os"
	"testing"
	"time"

	"github.com/wray-project/wray/internal/fd"
)

// BenchmarkBulk compares the way of a payload of 1 GiB, from the memory of one
// worker to that of another, with a bare loop of crypto/tls that copies as much
// from memory to memory of its process, and gives the time that the shortest
// payload takes.
func BenchmarkBulk(b *testing.B) {
	const size = 1 << 30
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	// The certificate is nobody's: here only the bytes count.
	dial := func(context.Context, string) (net.Conn, error) {
		return tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	}
	p := newBulkPair(b, size)
	p.b.p.bulk.dial = dial
	memory := memoryOf(b, make([]byte, size))
	defer memory.Close()
	serves := make(chan func(net.Conn), 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve := <-serves
			serves <- serve
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()

	b.Run("copy", func(b *testing.B) {
		serves <- func(c net.Conn) {
			var one [1]byte
			for {
				if _, err := io.ReadFull(c, one[:]); err != nil {
					return
				}
				for at := 0; at < size; at += 1 << 20 {
					if _, err := c.Write(p.data[at : at+1<<20]); err != nil {
						return
					}
				}
			}
		}
		c, err := dial(b.Context(), "")
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		dest := make([]byte, size)
		b.SetBytes(size)
		for b.Loop() {
			if _, err := c.Write([]byte{1}); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, dest); err != nil {
				b.Fatal(err)
			}
		}
		<-serves
	})
	serves <- func(c net.Conn) { p.a.p.bulk.serve(context.Background(), c, "b") }
	whole := memoryOf(b, p.data)
	defer whole.Close()
	p.serve(func() (*os.File, int64) {
		n, err := fd.Duplicate(whole)
		if err != nil {
			b.Error(err)
		}
		return os.NewFile(uintptr(n), "whole"), size
	})
	for _, run := range []struct {
		name string
		n    int64
	}{{"fill", size}, {"shortest", 1}} {
		b.Run(run.name, func(b *testing.B) {
			b.SetBytes(run.n)
			for b.Loop() {
				if err := p.fill(memory, bulkObject, run.n); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
