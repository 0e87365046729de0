package echo

import (
	"bufio"
	"bytes"
	"testing"
)

func FuzzReadFrame(f *testing.F) {
	var ok bytes.Buffer
	if err := writeFrame(&ok, 1, []byte("hello"), []byte{1, 2, 3, 4}); err != nil {
		f.Fatal(err)
	}
	f.Add(ok.Bytes())
	f.Add([]byte{0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, wire []byte) {
		op, payload, err := readFrame(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := writeFrame(&again, op, payload, nil); err != nil {
			t.Fatal(err)
		}
		op2, payload2, err := readFrame(bufio.NewReader(&again))
		if err != nil || op2 != op || !bytes.Equal(payload, payload2) {
			t.Errorf("%x came back as opcode %d, %d bytes, %v", wire, op2, len(payload2), err)
		}
	})
}
